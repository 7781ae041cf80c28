//! Which addresses may be reached. A subscriber chooses where the service posts to, so without this it would be a way to whatever
//! listens inside (server-side request forgery).
//!
//! By default: public addresses only, over TLS only. Networks that the mesh names are exempt from both. What counts is the address that
//! is connected to, after the name was resolved, and not what the name had for addresses before.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The variable that names networks which may be reached although they are not public: `10.1.0.0/16,fd00:1::/64`.
pub const VARIABLE: &str = "NOTIFIER_ALLOWED_NETWORKS";

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// What is not public of IPv4: the IANA registry of special-purpose addresses (RFC 6890), and multicast.
const SPECIAL_V4: [Ipv4Net; 18] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 52, 193, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(192, 175, 48, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// What is public of IPv6 lies in here (RFC 4291 §2.4), so that addresses with an IPv4 address inside (mapped, compatible, NAT64),
/// unique local, link-local and multicast ones do not…
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// …and not in these: Teredo and other protocols, documentation, 6to4, AS112.
const SPECIAL_V6: [Ipv6Net; 5] = [
    v6(0x2001, 0, 0, 23),
    v6(0x2001, 0xdb8, 0, 32),
    v6(0x2002, 0, 0, 16),
    v6(0x2620, 0x4f, 0x8000, 48),
    v6(0x3fff, 0, 0, 20),
];

/// Whether an address is one of the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Where the service may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    allowed: Vec<IpNet>,
}

/// An address that must not be reached. The text is for the subscriber, and does not repeat the address: what a name resolves to
/// inside is none of their business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// It is not public.
    #[error("is not at a public address")]
    NotPublic,
    /// It is spoken to in the clear.
    #[error("must begin with https://")]
    InTheClear,
}

impl Reach {
    /// Whether this address may be spoken to, over TLS or in the clear.
    ///
    /// # Errors
    /// [`Blocked`] says why not.
    pub fn check(&self, address: IpAddr, encrypted: bool) -> Result<(), Blocked> {
        if self.allowed.iter().any(|network| network.contains(&address)) {
            Ok(())
        } else if !encrypted {
            Err(Blocked::InTheClear)
        } else if is_public(address) {
            Ok(())
        } else {
            Err(Blocked::NotPublic)
        }
    }

    /// Whether there is any address that may be spoken to in the clear.
    #[must_use]
    pub fn may_be_in_the_clear(&self) -> bool {
        !self.allowed.is_empty()
    }
}

impl FromStr for Reach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |word: &str| {
            let word = word.trim();
            word.parse().map_err(|_| {
                format!("{word:?} is no network: write networks like 10.1.0.0/16, with commas between them")
            })
        };
        Ok(Self {
            allowed: text.split(',').filter(|word| !word.trim().is_empty()).map(network).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.88.99.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::7f00:1",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2620:4f:8000::1",
        ] {
            assert!(!is_public(ip(address)), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860:4860::8888",
            "2003::1",
        ] {
            assert!(is_public(ip(address)), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_allowed_and_nothing_beside() {
        let reach: Reach = " 10.1.0.0/16, fd00:1::/64,127.0.0.1/32 ".parse().unwrap();
        for (address, encrypted, expected) in [
            ("10.1.2.3", true, Ok(())),
            ("10.1.2.3", false, Ok(())),
            ("127.0.0.1", false, Ok(())),
            ("fd00:1::9", false, Ok(())),
            ("127.0.0.2", true, Err(Blocked::NotPublic)),
            ("10.2.0.1", true, Err(Blocked::NotPublic)),
            ("::ffff:10.1.2.3", true, Err(Blocked::NotPublic)),
            ("8.8.8.8", true, Ok(())),
            ("8.8.8.8", false, Err(Blocked::InTheClear)),
        ] {
            assert_eq!(reach.check(ip(address), encrypted), expected, "{address} {encrypted}");
        }
        assert_eq!("".parse(), Ok(Reach::default()));
        assert!(Reach::default().check(ip("127.0.0.1"), true).is_err());
        for wrong in ["10.1.0.0", "10.1.0.0/33", "localhost", "10.1.0.0/16;10.2.0.0/16"] {
            assert!(wrong.parse::<Reach>().unwrap_err().contains("10.1.0.0/16"), "{wrong}");
        }
    }
}
