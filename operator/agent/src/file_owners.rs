//! IDs of users and groups from `/etc/passwd` and `/etc/group`. Keyplane's files belong to system users, which these
//! files list and a directory service does not.

/// Returns the ID of a name in the text of `/etc/passwd` or `/etc/group`: the third field of both.
#[must_use]
pub fn number(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number_of_a_whole_name() {
        let passwd =
            "rooty:x:7:7::/:/bin/sh\nroot:x:0:0:root:/root:/bin/bash\netcd:x:998:997::/:/sbin/nologin\nbad:x\n";
        assert_eq!((number(passwd, "root"), number(passwd, "etcd")), (Some(0), Some(998)));
        assert_eq!((number(passwd, "roo"), number(passwd, "bad"), number("", "root")), (None, None, None));
    }
}
