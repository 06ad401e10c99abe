// SPDX-License-Identifier: Apache-2.0
//! Lines as syslog has them: RFC 3164 and RFC 5424, in Docker's variants.

use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::{Severity, Target, sink::Address};
use crate::domain::log::{LogConfig, SyslogFormat, SyslogTransport, tag};

/// Where a host's own syslog listens.
const LOCAL: &str = "/dev/log";

#[derive(Debug)]
pub(super) struct Encoder {
    format: SyslogFormat,
    facility: u8,
    tag: String,
    host: String,
    pid: u32,
}

impl Encoder {
    pub(super) fn new(target: &Target) -> Self {
        let template = target.config.option("tag").unwrap_or("{{.ID}}");
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            format: target.config.syslog_format(),
            facility: target.config.syslog_facility(),
            tag: tag(template, &target.names).unwrap_or_default(),
            host: if host.is_empty() { "-".to_owned() } else { host },
            pid: std::process::id(),
        }
    }

    /// One message, its newline included: what separates those of a stream.
    pub(super) fn message(&self, nanos: u64, severity: Severity, text: &[u8]) -> Vec<u8> {
        let Self { format, facility, tag, host, pid } = self;
        let priority = facility * 8 + severity as u8;
        let time = local(nanos);
        let header = match format {
            SyslogFormat::Unix => {
                format!("<{priority}>{} {tag}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
            SyslogFormat::Rfc3164 => {
                format!("<{priority}>{} {host} {tag}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
            SyslogFormat::Rfc5424 => {
                let time = time.strftime("%Y-%m-%dT%H:%M:%S%:z");
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
            SyslogFormat::Rfc5424Micro => {
                let time = time.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z");
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
        };
        let mut message = header.into_bytes();
        message.extend_from_slice(text);
        message.push(b'\n');
        message
    }
}

fn local(nanos: u64) -> Zoned {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    time.to_zoned(TimeZone::system())
}

/// Where it is to go; `None` for what was refused when it was asked for.
pub(super) fn address(config: &LogConfig) -> Option<Address> {
    let Some((transport, rest)) = config.syslog_address() else {
        let asked = config.option("syslog-address").is_some_and(|text| !text.is_empty());
        return (!asked).then(|| Address::Either(LOCAL.into()));
    };
    Some(match transport {
        SyslogTransport::Udp => Address::Udp(rest),
        SyslogTransport::Tcp => Address::Tcp(rest),
        SyslogTransport::Unix => Address::Stream(rest.into()),
        SyslogTransport::Unixgram => Address::Datagrams(rest.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_as_its_standard_has_it() {
        let message = |format| {
            let (tag, host) = ("web".to_owned(), "here".to_owned());
            let encoder = Encoder { format, facility: 3, tag, host, pid: 7 };
            let bytes = encoder.message(1_763_939_358_000_005_000, Severity::Error, b"a \xff b");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let zoned = local(1_763_939_358_000_005_000);
        let stamp = zoned.strftime("%b %e %H:%M:%S").to_string();
        assert_eq!(message(SyslogFormat::Unix), format!("<27>{stamp} web[7]: a \u{fffd} b\n"));
        assert_eq!(message(SyslogFormat::Rfc3164), format!("<27>{stamp} here web[7]: a \u{fffd} b\n"));
        let day = zoned.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let zone = zoned.strftime("%:z").to_string();
        let rest = "here web 7 web - a \u{fffd} b\n";
        assert_eq!(message(SyslogFormat::Rfc5424), format!("<27>1 {day}{zone} {rest}"));
        assert_eq!(message(SyslogFormat::Rfc5424Micro), format!("<27>1 {day}.000005{zone} {rest}"));
    }
}
