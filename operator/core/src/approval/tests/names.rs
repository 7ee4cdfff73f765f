//! Tests of canonical names and addresses.

use crate::approval::names::{DnsName, NameError, address_of_octets, is_subdomain, matches_pattern, parse_address};

#[test]
fn normalizes_case_and_trailing_dot() {
    for text in ["node1.example", "NODE1.Example", "node1.example.", "Node1.EXAMPLE."] {
        assert_eq!(DnsName::parse(text).unwrap().as_str(), "node1.example");
    }
}

#[test]
fn rejects_invalid_host_names_with_reason() {
    for (text, error) in [
        ("*.example", NameError::Wildcard),
        ("10.0.0.1", NameError::LooksLikeAddress),
        ("10.0.0.1.", NameError::LooksLikeAddress),
        ("1", NameError::LooksLikeAddress),
        ("0xA.1", NameError::LooksLikeAddress),
        ("::1", NameError::LooksLikeAddress),
        ("", NameError::NotAHostName),
        (".", NameError::NotAHostName),
        ("a..", NameError::NotAHostName),
        ("a_b", NameError::NotAHostName),
        ("a\0", NameError::NotAHostName),
        ("K.example\u{212a}", NameError::NotAHostName),
    ] {
        assert_eq!(DnsName::parse(text), Err(error), "{text:?}");
    }
    for text in ["1a", "a1", "node.1", "0x", "x0x1.2", "xn--bcher-kva.example"] {
        // inet_aton reads `0x` alone as zero.
        assert_eq!(DnsName::parse(text).is_ok(), text != "0x", "{text:?}");
    }
}

#[test]
fn enforces_dns_length_limits() {
    let label = "a".repeat(63);
    assert!(is_subdomain(&label));
    assert!(!is_subdomain(&format!("{label}a")));
    assert!(is_subdomain(&format!("{label}.{label}.{label}.{}", "a".repeat(61))));
    assert!(!is_subdomain(&format!("{label}.{label}.{label}.{}", "a".repeat(62))));
}

#[test]
fn domain_contains_itself_and_subdomains() {
    let within = |name: &str| DnsName::parse(name).unwrap().is_within("cluster.local");
    assert!(within("cluster.local") && within("x.cluster.local") && within("X.Cluster.Local."));
    assert!(!within("xcluster.local") && !within("local") && !within("cluster.local.example"));
}

#[test]
fn normalizes_ipv4_mapped_addresses() {
    assert_eq!(parse_address("::ffff:10.0.0.1"), parse_address("10.0.0.1"));
    assert_eq!(parse_address("FD00:0:0::1"), parse_address("fd00::1"));
    for text in ["010.0.0.1", "10.0.0.1/32", "10.0.0", "10.0.0.1 ", "fe80::1%eth0", "", "0x0a.0.0.1", "[::1]"] {
        assert_eq!(parse_address(text), None, "{text:?}");
    }
    assert_eq!(address_of_octets(&[10, 0, 0, 1]).ok(), parse_address("10.0.0.1"));
    assert_eq!(address_of_octets(&[253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).ok(), parse_address("fd00::1"));
}

#[test]
fn star_matches_any_characters_except_dots() {
    for (pattern, name, matches) in [
        ("worker-*", "worker-1", true),
        ("worker-*", "worker-", true),
        ("worker-*", "worker", false),
        ("worker-*", "worker-1.example", false),
        ("worker-*", "xworker-1", false),
        ("*", "a", true),
        ("*", "a.b", false),
        ("*.example", "a.example", true),
        ("*.example", "example", false),
        ("*.*", "a.b", true),
        ("a*b*c", "abc", true),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "ac", false),
        ("a*b*c", "abxc", true),
        ("a*a", "a", false),
        ("a**b", "ab", true),
        ("a*bb*b", "abbb", true),
        ("a*bb*b", "abb", false),
        ("a*x*x*b", "axb", false),
        ("a*x*x*b", "axxb", true),
        ("worker", "worker", true),
        ("worker", "workerx", false),
        ("w.*", "wx1", false),
    ] {
        assert_eq!(matches_pattern(pattern, name), matches, "{pattern} {name}");
    }
}

#[test]
fn no_pattern_is_slow() {
    let pattern = "*a".repeat(120);
    assert!(!matches_pattern(&pattern, &format!("{}b", "a".repeat(252))));
}
