//! Encodes the subset of DER that is necessary to encode a kubelet CSR again. The comparison detects content that the
//! parser ignored.

/// `BOOLEAN`.
pub const BOOLEAN: u8 = 0x01;
/// `INTEGER`.
pub const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub const OCTET_STRING: u8 = 0x04;
/// `NULL`.
pub const NULL: u8 = 0x05;
/// `OBJECT IDENTIFIER`.
pub const OID: u8 = 0x06;
/// `UTF8String`.
pub const UTF8_STRING: u8 = 0x0c;
/// `PrintableString`.
pub const PRINTABLE_STRING: u8 = 0x13;
/// `SEQUENCE`.
pub const SEQUENCE: u8 = 0x30;
/// `SET`.
pub const SET: u8 = 0x31;
/// `[0]`, constructed: the attributes of a request.
pub const ATTRIBUTES: u8 = 0xa0;
/// `[2]`, primitive: a DNS name among the general names.
pub const DNS_NAME: u8 = 0x82;
/// `[7]`, primitive: an IP address among the general names.
pub const IP_ADDRESS: u8 = 0x87;

/// Encodes one value: the tag, the shortest length, and the content.
pub fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match significant {
        [] => der.push(0),
        [short] if *short < 0x80 => der.push(*short),
        // At most the eight bytes of a usize, so the count fits.
        long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(u8::MAX));
            der.extend_from_slice(long);
        }
    }
    der.extend_from_slice(content);
    der
}

/// Encodes a value whose content is other values.
pub fn constructed<T: AsRef<[u8]>>(tag: u8, parts: &[T]) -> Vec<u8> {
    let content: Vec<u8> = parts.iter().flat_map(|part| part.as_ref().iter().copied()).collect();
    value(tag, &content)
}

/// Encodes whole bytes as a `BIT STRING`.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    constructed(BIT_STRING, &[&[0][..], bytes])
}
