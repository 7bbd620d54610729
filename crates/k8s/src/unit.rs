//! Label values for systemd units.
//!
//! The name of a transient unit has a new number or id each time, so that each would be a new series. These numbers and ids
//! become `*`, as in the patterns of `systemctl`.
//!
//! | unit | label | made by |
//! | --- | --- | --- |
//! | `run-r9c2….scope`, `run-u21.service`, `run-p12-i34.scope` | `run-*.scope`, `run-*.service`, `run-*-*.scope` | `systemd-run` |
//! | `crio-conmon-ID.scope` | `crio-conmon-*.scope` | CRI-O, podman |
//! | `UUID.web.scope`, `snap.app-UUID.scope` | `*.web.scope`, `snap.app-*.scope` | Nomad, snapd |
//! | `ID-5f3a….service` | `*-*.service` | podman's health checks |
//! | `sshd@4-10.0.0.1:22-10.0.0.2:5555.service`, `systemd-coredump@7-812-0.service` | `sshd@*.service`, `systemd-coredump@*.service` | sockets with `Accept=yes` (`instance_from_socket`, systemd's src/core/socket.c) |
//! | `dbus-:1.9-org.example@3.service` | `dbus-:*.*-org.example@*.service` | dbus-broker |
//! | `machine-qemu\x2d18\x2ddb.scope` | `machine-qemu\x2d*\x2ddb.scope` | libvirt: 18 is new at each start, `db` is the guest |
//!
//! Configured units keep their names, with their numbers (`postgresql@14-main.service`, `user@1000.service`). Escapes are kept too:
//! systemd's tools and exporters show escaped names.

use std::borrow::Cow;

use crate::hex::{UUID, is_grouped_hex, is_hex};

/// libvirt's names of QEMU guests: this, their number, `\x2d` and their name, escaped.
const LIBVIRT: &str = r"machine-qemu\x2d";

/// A dash in an escaped name: a plain `-` would mean a `/`.
const ESCAPED_DASH: &str = r"\x2d";

const UUID_BYTES: usize = 36;

/// Replaces the numbers and ids in the name of a transient unit.
pub(crate) fn make_stable(name: &str) -> Cow<'_, str> {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let stable = if let Some(guest) = stem.strip_prefix(LIBVIRT) {
        star_guest_number(guest)
    } else if stem.starts_with("machine-") {
        None
    } else {
        let accepted = stem
            .split_once('@')
            .filter(|(_, instance)| is_connection(instance))
            .map(|(template, _)| format!("{template}@*"));
        let starred = star_ids(accepted.as_deref().unwrap_or(stem));
        let is_transient = kind == "scope"
            || starred.has_random_id
            || starred.text.starts_with("run-*")
            || stem.starts_with("dbus-:");
        is_transient.then_some(starred.text).or(accepted)
    };
    stable.map_or(name.into(), |stable| format!("{stable}.{kind}").into())
}

fn star_guest_number(guest: &str) -> Option<String> {
    let (number, name) = guest.split_once(ESCAPED_DASH)?;
    let is_numbered = is_decimal(number);
    is_numbered.then(|| format!("{LIBVIRT}*{ESCAPED_DASH}{name}"))
}

/// Whether the instance of a template is a connection that a socket accepted: its number, and both addresses, or the peer's
/// process and user.
fn is_connection(instance: &str) -> bool {
    let mut parts = instance.split('-');
    let is_numbered = parts.next().is_some_and(is_decimal);
    let ends: Vec<&str> = parts.collect();
    let is_end = |end: &&str| {
        end.bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'_'))
    };
    is_numbered && (ends == ["unknown"] || ends.len() == 2 && ends.iter().all(is_end))
}

struct Starred {
    text: String,
    /// One of the ids was too long to be chosen by a person.
    has_random_id: bool,
}

/// Replaces the ids in a name.
fn star_ids(stem: &str) -> Starred {
    let mut starred = Starred {
        text: String::with_capacity(stem.len()),
        has_random_id: false,
    };
    let mut rest = stem;
    while let Some(first) = rest.chars().next() {
        let word_end = rest.find(|char: char| !char.is_ascii_alphanumeric());
        let word = &rest[..word_end.unwrap_or(rest.len())];
        let uuid = rest
            .get(..UUID_BYTES)
            .filter(|uuid| is_grouped_hex(uuid, '-', &UUID));
        let taken = if let Some(uuid) = uuid {
            starred.has_random_id = true;
            uuid.len()
        } else if word.is_empty() {
            let escape = rest.get(..ESCAPED_DASH.len());
            let escape = escape.filter(|escape| escape.starts_with(r"\x"));
            escape.map_or(first.len_utf8(), str::len)
        } else {
            starred.has_random_id |= is_random(word);
            word.len()
        };
        if uuid.is_some() || is_id(word) {
            starred.text.push('*');
        } else {
            starred.text.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    starred
}

/// A number, one after a letter (`c3`, `u21`), or digits of a hash or an address, also after a letter.
fn is_id(word: &str) -> bool {
    const HASH_DIGITS_MIN: usize = 8;
    let unprefixed = word.strip_prefix(|char: char| char.is_ascii_lowercase());
    [Some(word), unprefixed]
        .into_iter()
        .flatten()
        .any(|digits| {
            let is_hash = digits.len() >= HASH_DIGITS_MIN
                && digits.bytes().any(|byte| byte.is_ascii_digit())
                && is_hex(digits, digits.len());
            is_decimal(digits) || is_hash
        })
}

/// 128 bits or more.
fn is_random(word: &str) -> bool {
    word.len() >= 32 && is_id(word)
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the names of units that programs make, by their makers, and that a label keeps its name when it is made stable again.
    #[test]
    fn transient_units() {
        let id = "49f9e8e5395d57c1083996c09e2e6f04".repeat(2);
        let uuid = "4b9a6f3e-fade-4c1d-beef-0123456789ab";
        for (name, expected) in [
            ("run-r9c2ddf9594bbf4a1986439b594f89eb0.scope", "run-*.scope"),
            ("run-u21.service", "run-*.service"),
            ("run-p12-i34.scope", "run-*-*.scope"),
            ("run-1234.scope", "run-*.scope"),
            (&format!("crio-conmon-{id}.scope"), "crio-conmon-*.scope"),
            (&format!("{id}-5f3a9c0d1e2b.service"), "*-*.service"),
            (&format!("{uuid}.web.scope"), "*.web.scope"),
            (
                &format!("snap.app.app-{uuid}.scope"),
                "snap.app.app-*.scope",
            ),
            (
                "app-gnome-org.gnome.Terminal-4321.scope",
                "app-gnome-org.gnome.Terminal-*.scope",
            ),
            ("sshd@4-10.0.0.1:22-10.0.0.2:5555.service", "sshd@*.service"),
            ("sshd@4-fe80::1:22-fe80::2:5555.service", "sshd@*.service"),
            (
                "systemd-coredump@7-812-0.service",
                "systemd-coredump@*.service",
            ),
            ("x@7-unknown.service", "x@*.service"),
            ("a-dcd7cd40@405-8a3-53.scope", "a-*@*.scope"),
            (
                "dbus-:1.9-org.example@3.service",
                "dbus-:*.*-org.example@*.service",
            ),
            (
                r"machine-qemu\x2d18\x2dvm\x2d1.scope",
                r"machine-qemu\x2d*\x2dvm\x2d1.scope",
            ),
        ] {
            assert_eq!(make_stable(name), expected);
            assert_eq!(make_stable(expected), expected);
        }
    }

    /// Check that configured units keep their names.
    #[test]
    fn configured_units() {
        for name in [
            "nginx.service",
            "user@1000.service",
            "postgresql@14-main.service",
            "postgresql@9.4-main.service",
            "getty@tty1.service",
            "ceph-osd@12.service",
            "run-backup.service",
            "app-2.service",
            "init.scope",
            "machine-web1.scope",
            r"machine-qemu\x2dweb.scope",
            r"mnt-disk\x2d1.mount",
        ] {
            assert_eq!(make_stable(name), name);
        }
    }
}
