// SPDX-License-Identifier: Apache-2.0
//! Names and addresses: `--add-host`, `--dns`.

use std::net::IpAddr;

use super::Parsed;

/// `host:address` or `host=address`, as the engine takes it: with a colon.
///
/// # Errors
/// When there is no host or the address is none.
pub fn extra_host(text: &str) -> Parsed<String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((host, address)) = split.filter(|(host, _)| !host.is_empty()) else {
        return Err(format!("bad format for add-host: \"{text}\""));
    };
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr =
        bare.parse().map_err(|_| format!("invalid IP address in add-host: \"{address}\""))?;
    Ok(format!("{host}:{address}"))
}

/// An address of a DNS server.
///
/// # Errors
/// When it is none.
pub fn address(text: &str) -> Parsed<String> {
    let address: IpAddr = text.trim().parse().map_err(|_| format!("{text} is not an ip address"))?;
    Ok(address.to_string())
}

/// A port of a container, with its protocol: `80` is `80/tcp`.
///
/// # Errors
/// When it isn't a number from 1 to 65535 and, after a slash, a protocol.
pub fn port(text: &str) -> Parsed<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = ["tcp", "udp", "sctp"].contains(&protocol);
    match number.parse::<u16>() {
        Ok(number @ 1..) if known => Ok(format!("{number}/{protocol}")),
        _ => Err(format!("invalid port '{text}': expected a number, and /tcp, /udp or /sctp")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_of_tcp_unless_it_says_otherwise() {
        assert_eq!(port("80"), Ok("80/tcp".into()));
        assert_eq!(port("53/udp"), Ok("53/udp".into()));
        for bad in ["", "0", "65536", "80/", "80/icmp", "http"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_separators_and_both_families() {
        assert_eq!(extra_host("a:10.0.0.1"), Ok("a:10.0.0.1".into()));
        assert_eq!(extra_host("a=10.0.0.1"), Ok("a:10.0.0.1".into()));
        assert_eq!(extra_host("a:::1"), Ok("a:::1".into()));
        assert_eq!(extra_host("a=[::1]"), Ok("a:::1".into()));
        assert_eq!(extra_host("a"), Err("bad format for add-host: \"a\"".into()));
        assert_eq!(extra_host("a:b"), Err("invalid IP address in add-host: \"b\"".into()));
        assert!(extra_host(":10.0.0.1").is_err());
    }

    #[test]
    fn a_dns_server_is_an_address() {
        assert_eq!(address(" 1.1.1.1 "), Ok("1.1.1.1".into()));
        assert_eq!(address("dns"), Err("dns is not an ip address".into()));
    }
}
