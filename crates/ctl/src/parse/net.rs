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

#[cfg(test)]
mod tests {
    use super::*;

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
