// SPDX-License-Identifier: Apache-2.0
//! Terminals: what a person at one sees, types, and gets.

use crate::support::{Engine, Image, Pty, engine::with_busybox, until};

/// A bash in a container on a terminal, at its prompt.
fn bash() -> Option<(Engine, Pty)> {
    let engine = Engine::start()?;
    engine.load(&Image::debian(), "debian");
    let mut args = vec!["run", "-it", "--name", "shell", "-e", "PS1=ready> ", "-e", "TERM=dumb"];
    args.extend(["debian", "bash", "--norc", "--noprofile"]);
    let mut terminal = engine.terminal(&args);
    terminal.expect("ready> ");
    Some((engine, terminal))
}

#[test]
fn a_shell_hands_on_its_exit_status() {
    let Some((engine, mut terminal)) = bash() else { return };
    let before = terminal.settings();
    terminal.send("ls -l /proc/self/fd/0\r");
    terminal.expect("/dev/pts/0\r\n");
    terminal.expect("ready> ");
    terminal.send("exit 7\r");
    assert_eq!(terminal.wait(), 7);
    assert_ne!(before, "", "stty");
    assert_eq!(engine.inspect("shell")["State"]["ExitCode"], 7);
}

#[test]
fn jobs_are_stopped_and_continued_from_the_keyboard() {
    let Some((_engine, mut terminal)) = bash() else { return };
    terminal.send("sleep 1000\r");
    // Only when it is the one that the keys go to.
    wait_foreground("sleep");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.expect("ready> ");
    terminal.send("jobs\r");
    terminal.expect("[1]+  Stopped");
    terminal.expect("ready> ");
    terminal.send("fg\r");
    terminal.expect("sleep 1000\r\n");
    wait_foreground("sleep");
    terminal.send("\x03");
    terminal.expect("ready> ");
    terminal.send("echo \"status=$?\"\r");
    terminal.expect("status=130\r\n");
    terminal.expect("ready> ");
    terminal.send("\x04");
    // Bash says exit, and ends with the last command's status.
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn a_resized_window_is_resized_inside() {
    let Some((_engine, mut terminal)) = bash() else { return };
    terminal.send("stty size\r");
    terminal.expect("24 80\r\n");
    terminal.expect("ready> ");
    terminal.send("trap 'echo \"now $(stty size)\"' WINCH; echo set\r");
    terminal.expect("set\r\n");
    terminal.expect("ready> ");
    terminal.resize(40, 132);
    until("the new size inside", || {
        terminal.send("stty size\r");
        let seen = terminal.expect("ready> ");
        seen.contains("40 132").then_some(())
    });
    terminal.send("exit\r");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn detaching_leaves_it_running_and_attaching_comes_back() {
    let Some((engine, mut terminal)) = bash() else { return };
    terminal.send("here=42\r");
    terminal.expect("ready> ");
    terminal.send("\x10\x11");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(engine.status("shell"), "running");

    let mut again = engine.terminal(&["attach", "shell"]);
    at_prompt(&mut again);
    again.send("echo \"still $here\"\r");
    again.expect("still 42\r\n");
    again.expect("ready> ");
    again.send("exit 5\r");
    assert_eq!(again.wait(), 5);
}

#[test]
fn other_keys_detach_when_asked_for() {
    let Some(engine) = with_busybox() else { return };
    let mut terminal =
        engine.terminal(&["run", "-it", "--name", "keys", "--detach-keys", "ctrl-a,d", "busybox", "cat"]);
    terminal.send("first\r");
    terminal.expect("first\r\nfirst\r\n");
    terminal.send("\x01d");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(engine.status("keys"), "running");
}

#[test]
fn the_terminal_is_as_it_was_afterwards() {
    let Some(engine) = with_busybox() else { return };
    // The second program on the same terminal sees what the first one left.
    let script = "before=$(stty -g); \"$BERTH\" run -it --rm busybox true; test \"$before\" = \"$(stty -g)\" && echo same";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]);
    for (name, value) in engine.berth_command(&[]).get_envs() {
        command.env(name, value.expect("set"));
    }
    command.env("BERTH", crate::support::engine::program("berth"));
    let mut terminal = Pty::spawn(&command);
    terminal.expect("same\r\n");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn without_a_terminal_input_is_a_pipe_and_its_end_is_seen() {
    let Some(engine) = with_busybox() else { return };
    let said = engine.berth_with_input(&["run", "-i", "--rm", "busybox", "wc", "-c"], b"twelve bytes").ok();
    assert_eq!(said.line(), "12");
    // Without -i there is nothing to read.
    let said = engine.berth_with_input(&["run", "--rm", "busybox", "wc", "-c"], b"twelve bytes").ok();
    assert_eq!(said.line(), "0");
    // A megabyte goes through and comes back.
    let data: Vec<u8> =
        (0..1_000_000_u32).map(|n| b"abcdefghijklmnopqrstuvwxyz\n"[n as usize % 27]).collect();
    let said = engine.berth_with_input(&["run", "-i", "--rm", "busybox", "cat"], &data).ok();
    assert!(said.bytes == data, "{} bytes of {}", said.bytes.len(), data.len());
}

#[test]
fn a_terminal_without_one_is_refused() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-it", "busybox", "true"]).exits(125).complains(&["the input device is not a TTY"]);
}

/// Presses return until the shell answers: what is typed before the terminal is
/// the container's is nobody's.
fn at_prompt(terminal: &mut Pty) {
    until("the prompt", || {
        terminal.send("\r");
        terminal.sees("ready> ")
    });
}

/// Waits until `name`, of a container of this test, is asleep in the foreground
/// of its terminal: then the keys go to it.
fn wait_foreground(name: &str) {
    let ours = format!("/berth-test-{}-", std::process::id());
    until(&format!("{name} in the foreground"), || {
        let mut processes = std::fs::read_dir("/proc").expect("/proc").flatten().map(|e| e.path());
        processes.find(|proc| {
            let read = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
            let stat = read("stat");
            let Some((before, after)) = stat.rsplit_once(") ") else { return false };
            // State, parent, process group, session, terminal, its foreground
            // group: proc_pid_stat(5).
            let fields: Vec<_> = after.split(' ').collect();
            before.ends_with(&format!("({name}"))
                && fields[0] == "S"
                && fields[2] == fields[5]
                && read("cgroup").contains(&ours)
        })
    });
}
