//! The CIDRs of Services and Pods.

use std::net::IpAddr;

use ipnet::IpNet;

use super::FieldError;

/// Formats CIDRs for a flag: separated by commas.
#[must_use]
pub fn joined(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn nth_address(range: &IpNet, n: u32) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).checked_add(n)?.into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).checked_add(u128::from(n))?.into()),
    };
    range.contains(&address).then_some(address)
}

pub(super) fn parse_cidrs(field: &str, written: &[String]) -> Result<Vec<IpNet>, FieldError> {
    let ranges = written
        .iter()
        .map(|text| match text.parse::<IpNet>() {
            Ok(range) if range.trunc() == range => Ok(range),
            Ok(range) => Err(FieldError::new(field, format!("{text} has host bits: write {}", range.trunc()))),
            Err(_) => Err(FieldError::new(field, format!("{text:?} is not a CIDR: write one like 10.96.0.0/12"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    match ranges.as_slice() {
        [] | [_] => Ok(ranges),
        [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4() => Ok(ranges),
        _ => Err(FieldError::new(field, "two ranges mean dual stack: write one IPv4 and one IPv6 range")),
    }
}

pub(super) fn refuse_overlaps(service_cidrs: &[IpNet], pod_cidrs: &[IpNet]) -> Result<(), FieldError> {
    for service in service_cidrs {
        for pod in pod_cidrs {
            if service.contains(pod) || pod.contains(service) {
                return Err(FieldError::new(
                    "spec.network",
                    format!("serviceCIDRs {service} and podCIDRs {pod} overlap: choose disjoint ranges"),
                ));
            }
        }
    }
    Ok(())
}
