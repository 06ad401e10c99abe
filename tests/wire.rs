// SPDX-License-Identifier: Apache-2.0
//! The wire: what others depend on and the compiler can't see.
//!
//! `tests/golden/api.txt` is all of `proto/` as text, a line per field. A
//! change of it is a change of the API and belongs into the review:
//! `UPDATE_GOLDEN=1 cargo test --test wire` writes the new one. Below that,
//! the parts that are containerd's are stated again from its side, and the
//! bytes of a ttrpc call are written out by hand.

use std::{collections::BTreeSet, env, fs, path::PathBuf, time::Duration};

use berth::{
    api::{FILE_DESCRIPTOR_SET, task, types::Mount},
    ttrpc::{Code, client::Client},
};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

// --- the whole API ---

/// Sorted lines: `package.Message.field = number : type`,
/// `package.Enum.VALUE = number`, `package.Service/Method(in) -> out`.
fn dump() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|f| !f.package().starts_with("google.")) {
        let package = file.package();
        file.message_type.iter().for_each(|m| dump_message(package, m, &mut lines));
        file.enum_type.iter().for_each(|e| dump_enum(package, e, &mut lines));
        for service in &file.service {
            let name = format!("{package}.{}", service.name());
            lines.extend(service.method.iter().map(|m| method_line(&name, m)));
        }
    }
    lines
}

fn dump_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    if message.field.is_empty() {
        lines.insert(format!("{name} {{}}"));
    }
    for field in &message.field {
        lines.insert(format!(
            "{name}.{} = {} : {}",
            field.name(),
            field.number(),
            field_type(message, field)
        ));
    }
    for range in &message.reserved_range {
        lines.insert(format!("{name} reserves {}..{}", range.start(), range.end()));
    }
    lines.extend(message.reserved_name.iter().map(|reserved| format!("{name} reserves {reserved}")));
    message.enum_type.iter().for_each(|e| dump_enum(&name, e, lines));
    let nested = message.nested_type.iter().filter(|m| !is_map_entry(m));
    nested.for_each(|m| dump_message(&name, m, lines));
}

fn dump_enum(scope: &str, definition: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", definition.name());
    lines.extend(definition.value.iter().map(|v| format!("{name}.{} = {}", v.name(), v.number())));
}

fn method_line(service: &str, method: &MethodDescriptorProto) -> String {
    let stream = |is: bool| if is { "stream " } else { "" };
    format!(
        "{service}/{}({}{}) -> {}{}",
        method.name(),
        stream(method.client_streaming()),
        method.input_type().trim_start_matches('.'),
        stream(method.server_streaming()),
        method.output_type().trim_start_matches('.'),
    )
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn field_type(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let short = field.type_name().rsplit('.').next().unwrap_or_default();
    if let Some(entry) = message.nested_type.iter().find(|m| m.name() == short && is_map_entry(m)) {
        return format!("map<{}, {}>", plain_type(&entry.field[0]), plain_type(&entry.field[1]));
    }
    let plain = plain_type(field);
    let oneof = field.oneof_index.and_then(|n| message.oneof_decl.get(usize::try_from(n).ok()?));
    match oneof {
        _ if field.label() == Label::Repeated => format!("repeated {plain}"),
        _ if field.proto3_optional() => format!("optional {plain}"),
        Some(oneof) => format!("{plain} in {}", oneof.name()),
        None => plain,
    }
}

fn plain_type(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

#[test]
fn the_api_is_the_recorded_one() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/api.txt");
    let now = dump();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&golden, text).expect("write the golden file");
        return;
    }
    let text = fs::read_to_string(&golden).expect("tests/golden/api.txt");
    let recorded: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let gone = recorded.difference(&now).map(|line| format!("- {line}"));
    let new = now.difference(&recorded).map(|line| format!("+ {line}"));
    let changes: Vec<String> = gone.chain(new).collect();
    assert!(
        changes.is_empty(),
        "the API has changed; `UPDATE_GOLDEN=1 cargo test --test wire` records it:\n{}",
        changes.join("\n")
    );
}

// --- containerd's part, as its clients and shims have it ---

/// Method, request, response of the Task service; `Empty` is google's.
const TASK_METHODS: [(&str, &str, &str); 17] = [
    ("State", "StateRequest", "StateResponse"),
    ("Create", "CreateTaskRequest", "CreateTaskResponse"),
    ("Start", "StartRequest", "StartResponse"),
    ("Delete", "DeleteRequest", "DeleteResponse"),
    ("Pids", "PidsRequest", "PidsResponse"),
    ("Pause", "PauseRequest", "Empty"),
    ("Resume", "ResumeRequest", "Empty"),
    ("Checkpoint", "CheckpointTaskRequest", "Empty"),
    ("Kill", "KillRequest", "Empty"),
    ("Exec", "ExecProcessRequest", "Empty"),
    ("ResizePty", "ResizePtyRequest", "Empty"),
    ("CloseIO", "CloseIORequest", "Empty"),
    ("Update", "UpdateTaskRequest", "Empty"),
    ("Wait", "WaitRequest", "WaitResponse"),
    ("Stats", "StatsRequest", "StatsResponse"),
    ("Connect", "ConnectRequest", "ConnectResponse"),
    ("Shutdown", "ShutdownRequest", "Empty"),
];

/// Messages of `containerd.task.v3` with the names of fields 1, 2, 3, ….
const TASK_FIELDS: [(&str, &[&str]); 28] = [
    (
        "CreateTaskRequest",
        &[
            "id:string",
            "bundle:string",
            "rootfs:containerd.types.Mount[]",
            "terminal:bool",
            "stdin:string",
            "stdout:string",
            "stderr:string",
            "checkpoint:string",
            "parent_checkpoint:string",
            "options:google.protobuf.Any",
        ],
    ),
    ("CreateTaskResponse", &["pid:uint32"]),
    ("DeleteRequest", &["id:string", "exec_id:string"]),
    ("DeleteResponse", &["pid:uint32", "exit_status:uint32", "exited_at:google.protobuf.Timestamp"]),
    (
        "ExecProcessRequest",
        &[
            "id:string",
            "exec_id:string",
            "terminal:bool",
            "stdin:string",
            "stdout:string",
            "stderr:string",
            "spec:google.protobuf.Any",
        ],
    ),
    ("ResizePtyRequest", &["id:string", "exec_id:string", "width:uint32", "height:uint32"]),
    ("StateRequest", &["id:string", "exec_id:string"]),
    (
        "StateResponse",
        &[
            "id:string",
            "bundle:string",
            "pid:uint32",
            "status:containerd.v1.types.Status",
            "stdin:string",
            "stdout:string",
            "stderr:string",
            "terminal:bool",
            "exit_status:uint32",
            "exited_at:google.protobuf.Timestamp",
            "exec_id:string",
        ],
    ),
    ("KillRequest", &["id:string", "exec_id:string", "signal:uint32", "all:bool"]),
    ("CloseIORequest", &["id:string", "exec_id:string", "stdin:bool"]),
    ("PidsRequest", &["id:string"]),
    ("PidsResponse", &["processes:containerd.v1.types.ProcessInfo[]"]),
    ("CheckpointTaskRequest", &["id:string", "path:string", "options:google.protobuf.Any"]),
    ("UpdateTaskRequest", &["id:string", "resources:google.protobuf.Any", "annotations:map"]),
    ("StartRequest", &["id:string", "exec_id:string"]),
    ("StartResponse", &["pid:uint32"]),
    ("WaitRequest", &["id:string", "exec_id:string"]),
    ("WaitResponse", &["exit_status:uint32", "exited_at:google.protobuf.Timestamp"]),
    ("StatsRequest", &["id:string"]),
    ("StatsResponse", &["stats:google.protobuf.Any"]),
    ("ConnectRequest", &["id:string"]),
    ("ConnectResponse", &["shim_pid:uint32", "task_pid:uint32", "version:string"]),
    ("ShutdownRequest", &["id:string", "now:bool"]),
    ("PauseRequest", &["id:string"]),
    ("ResumeRequest", &["id:string"]),
    // containerd.types and containerd.v1.types
    ("Mount", &["type:string", "source:string", "target:string", "options:string[]"]),
    ("ProcessInfo", &["pid:uint32", "info:google.protobuf.Any"]),
    ("Status", &[]),
];

fn full_name(message: &str) -> String {
    match message {
        "Empty" => "google.protobuf.Empty".to_owned(),
        "Mount" => "containerd.types.Mount".to_owned(),
        "ProcessInfo" | "Status" => format!("containerd.v1.types.{message}"),
        _ => format!("containerd.task.v3.{message}"),
    }
}

#[test]
fn the_task_service_has_containerds_methods() {
    let lines = dump();
    for (method, request, response) in TASK_METHODS {
        let line =
            format!("containerd.task.v3.Task/{method}({}) -> {}", full_name(request), full_name(response));
        assert!(lines.contains(&line), "{line}");
    }
    let methods = lines.iter().filter(|l| l.starts_with("containerd.task.v3.Task/")).count();
    assert_eq!(methods, TASK_METHODS.len());
}

#[test]
fn the_task_messages_have_containerds_numbers() {
    let lines = dump();
    for (message, fields) in TASK_FIELDS {
        for (number, field) in (1..).zip(fields) {
            let (name, kind) = field.split_once(':').expect("name:type");
            let kind = match kind.strip_suffix("[]") {
                Some(element) => format!("repeated {element}"),
                None if kind == "map" => "map<string, string>".to_owned(),
                None => kind.to_owned(),
            };
            let line = format!("{}.{name} = {number} : {kind}", full_name(message));
            assert!(lines.contains(&line), "{line}");
        }
        let prefix = format!("{}.", full_name(message));
        let count = lines.iter().filter(|l| l.starts_with(&prefix) && l.contains(" : ")).count();
        assert_eq!(count, fields.len(), "{message}");
    }
    for (status, number) in
        (0..).zip(["UNKNOWN", "CREATED", "RUNNING", "STOPPED", "PAUSED", "PAUSING"]).map(|(n, s)| (s, n))
    {
        let line = format!("containerd.v1.types.Status.{status} = {number}");
        assert!(lines.contains(&line), "{line}");
    }
}

// --- ttrpc, byte by byte ---

/// A length-delimited field of protobuf: key, length, bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 0x80, "a longer one needs two bytes of length");
    [&[number << 3 | 2, length], bytes].concat()
}

fn create_request() -> task::CreateTaskRequest {
    task::CreateTaskRequest {
        id: "c1".to_owned(),
        bundle: "/b".to_owned(),
        rootfs: vec![Mount {
            r#type: "bind".to_owned(),
            source: "/r".to_owned(),
            options: vec!["ro".to_owned()],
            ..Mount::default()
        }],
        terminal: true,
        ..task::CreateTaskRequest::default()
    }
}

/// `Create` as the first call of a connection, with a timeout of two seconds.
fn create_frame() -> Vec<u8> {
    let mount = [field(1, b"bind"), field(2, b"/r"), field(4, b"ro")].concat();
    let create = [field(1, b"c1"), field(2, b"/b"), field(3, &mount), vec![4 << 3, 1]].concat();
    let request = [
        field(1, b"containerd.task.v3.Task"),
        field(2, b"Create"),
        field(3, &create),
        // timeout_nano: 2 000 000 000 as a varint
        vec![4 << 3, 0x80, 0xa8, 0xd6, 0xb9, 0x07],
    ]
    .concat();
    let length = u8::try_from(request.len()).expect("short");
    // length, stream 1, type request, flags
    [&[0, 0, 0, length, 0, 0, 0, 1, 1, 0], &request[..]].concat()
}

#[tokio::test]
async fn a_create_call_is_these_bytes_and_its_answer_those() {
    let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
    let client = Client::new(ours);
    let request = create_request();
    let call = client.call::<_, task::CreateTaskResponse>(
        "containerd.task.v3.Task",
        "Create",
        &request,
        Some(Duration::from_secs(2)),
    );
    let server = async {
        let expected = create_frame();
        let mut seen = vec![0; expected.len()];
        theirs.read_exact(&mut seen).await.expect("a request");
        assert_eq!(seen, expected);
        // payload: pid 300, as containerd's own shims leave the status out
        let response = field(2, &[1 << 3, 0xac, 0x02]);
        theirs.write_all(&[&[0, 0, 0, 5, 0, 0, 0, 1, 2, 0], &response[..]].concat()).await.expect("answer");
    };
    let (answer, ()) = tokio::join!(call, server);
    assert_eq!(answer.expect("an answer").pid, 300);
}

#[tokio::test]
async fn a_failed_call_carries_grpcs_code() {
    let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
    let client = Client::new(ours);
    let request = task::StateRequest::default();
    let call = client.call::<_, task::StateResponse>("containerd.task.v2.Task", "State", &request, None);
    let server = async {
        let mut header = [0; 10];
        theirs.read_exact(&mut header).await.expect("a request");
        // status: code 5, message "gone"
        let status = [vec![1 << 3, 5], field(2, b"gone")].concat();
        let response = field(1, &status);
        theirs.write_all(&[&[0, 0, 0, 10, 0, 0, 0, 1, 2, 0], &response[..]].concat()).await.expect("answer");
    };
    let (answer, ()) = tokio::join!(call, server);
    let status = answer.expect_err("refused");
    assert_eq!((status.code, status.message.as_str()), (Code::NotFound, "gone"));
}
