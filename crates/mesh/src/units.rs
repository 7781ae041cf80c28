//! Quantities: what a number in the plan counts, so that bytes never meet cores or milliseconds.
//!
//! In `mesh.toml` a quantity is written with its unit (`"256MiB"`, `"1.5s"`) or, for cores, as a plain number; in the plan it
//! is a whole number of the smallest unit.

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text or number is not the quantity it should be, and what would be; shown to the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidQuantity {
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub help: String,
}

impl InvalidQuantity {
    fn new(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { problem: problem.into(), help: help.into() }
    }
}

/// An amount of memory or disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

const BINARY_UNITS: [(&str, u64); 5] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

impl Bytes {
    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many times 1024² bytes.
    pub const fn mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reads `"512MiB"`, `"1.5GiB"`, `"65536B"`. A fraction is allowed as long as the amount is a whole number of bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        let wrong = |problem: String| InvalidQuantity::new(problem, Self::mend(text));
        let Some((number, scale)) =
            BINARY_UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), *scale)))
        else {
            return Err(wrong(format!("`{text}` has no unit this knows")));
        };
        let amount = decimal(number, scale).ok_or_else(|| wrong(format!("`{text}` is not an amount of memory")))?;
        if amount == 0 {
            return Err(wrong("an amount of nothing".to_owned()));
        }
        Ok(Self(amount))
    }
}

impl Bytes {
    /// `256M`, `256MB`, `256mib` → did you mean `256MiB`?
    fn mend(text: &str) -> String {
        let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
        let binary = match unit.to_ascii_lowercase().as_str() {
            "k" | "kb" | "kib" => "KiB",
            "m" | "mb" | "mib" => "MiB",
            "g" | "gb" | "gib" => "GiB",
            "t" | "tb" | "tib" => "TiB",
            _ => "",
        };
        if !binary.is_empty() && decimal(number.trim_end(), 1 << 30).is_some() {
            return format!("did you mean `{number}{binary}`? Units are binary: a KiB is 1024 bytes, a MiB 1024 KiB");
        }
        "write a number and a binary unit: \"256MiB\", \"1.5GiB\"; the units are B, KiB, MiB, GiB and TiB".to_owned()
    }
}

/// `number` × `scale` exactly, or nothing when `number` is no plain decimal, the product is not whole, or it does not fit.
fn decimal(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let bare_point = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || bare_point || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let divisor = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let product = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale);
    let part = product
        .checked_rem(u128::from(divisor))
        .filter(|rest| *rest == 0)
        .and(product.checked_div(u128::from(divisor)))?;
    whole.checked_add(u64::try_from(part).ok()?)
}

impl fmt::Display for Bytes {
    /// The largest binary unit with at most two decimals: `384MiB`, `1.5GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.0 {
            0..0x400 => ("B", 1),
            0x400..0x10_0000 => ("KiB", 1_u64 << 10),
            0x10_0000..0x4000_0000 => ("MiB", 1 << 20),
            0x4000_0000..0x100_0000_0000 => ("GiB", 1 << 30),
            _ => ("TiB", 1 << 40),
        };
        // Display only: the two decimals hide what a double cannot hold.
        let amount = format!("{:.2}", self.0 as f64 / scale as f64);
        write!(f, "{}{unit}", amount.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A share of processor time, in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliCpu(u32);

impl MilliCpu {
    const LEAST: f64 = 0.01;
    const MOST: f64 = 1024.0;

    /// That many thousandths of a core.
    pub const fn new(millis: u32) -> Self {
        Self(millis)
    }

    /// Thousandths of a core.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Reads a number of cores: `0.5`, `2`. From a hundredth of a core to 1024 cores, in steps of a thousandth.
    pub fn from_cores(cores: f64) -> Result<Self, InvalidQuantity> {
        const HELP: &str = "write a number of cores between 0.01 and 1024, such as 0.5 or 2";
        if !(Self::LEAST..=Self::MOST).contains(&cores) {
            return Err(InvalidQuantity::new(format!("{cores} cores are out of range"), HELP));
        }
        let millis = (cores * 1000.0).round();
        if (millis / 1000.0 - cores).abs() > 1e-9 {
            return Err(InvalidQuantity::new(format!("{cores} is finer than a thousandth of a core"), HELP));
        }
        // The range was checked above: between 10 and 1,024,000.
        Ok(Self(millis as u32))
    }
}

impl fmt::Display for MilliCpu {
    /// Cores: `0.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

/// A span of time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(u64);

impl Millis {
    const MOST: u64 = 24 * 60 * 60 * 1000;

    /// That many milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// That many seconds.
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds as u64 * 1000)
    }

    /// The number of milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same span in the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Reads `"500ms"`, `"1.5s"`, `"1m 30s"`: between a millisecond and a day.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        const HELP: &str = "write a duration between 1ms and 24h with its unit: \"500ms\", \"1.5s\", \"1m 30s\"";
        let span = text
            .parse::<jiff::SignedDuration>()
            .map_err(|_| InvalidQuantity::new(format!("`{text}` is no duration"), HELP))?;
        u64::try_from(span.as_millis())
            .ok()
            .filter(|millis| (1..=Self::MOST).contains(millis))
            .map(Self)
            .ok_or_else(|| InvalidQuantity::new(format!("`{text}` is out of range"), HELP))
    }
}

impl From<Millis> for Duration {
    fn from(span: Millis) -> Self {
        span.duration()
    }
}

/// A TCP port somebody listens on: never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// The highest there is.
    pub const MOST: Self = Self(NonZeroU16::MAX);

    /// Nothing for 0.
    pub fn new(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(Self)
    }

    /// The port number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The port `offset` above this one, if there is one.
    pub(crate) fn plus(self, offset: u16) -> Option<Self> {
        self.0.checked_add(offset).map(Self)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_exactly() {
        for (text, bytes) in [
            ("1B", 1),
            ("1.5GiB", 1_610_612_736),
            ("7.5GiB", 8_053_063_680),
            ("256MiB", 268_435_456),
            ("0.5KiB", 512),
            ("2 TiB", 2 << 40),
        ] {
            assert_eq!(Bytes::parse(text).map(Bytes::get), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "256",
            "256MB",
            "256mib",
            "-1MiB",
            "1e3MiB",
            "1.MiB",
            ".5MiB",
            "0MiB",
            "0.3B",
            "99999999TiB",
            "1..5GiB",
            "1.2.3GiB",
            "+1MiB",
            "١MiB",
        ] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_as_a_person_writes_them() {
        for text in ["1B", "1.5GiB", "384MiB", "40GiB", "3TiB", "16KiB"] {
            assert_eq!(Bytes::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn cores_have_a_thousandth_for_their_smallest_step() {
        for (cores, millis) in [(0.5, 500), (2.0, 2000), (0.01, 10), (0.125, 125), (1024.0, 1_024_000)] {
            assert_eq!(MilliCpu::from_cores(cores).map(MilliCpu::get), Ok(millis));
        }
        for cores in [0.0, 0.009, -1.0, f64::NAN, f64::INFINITY, 1024.5, 0.0105] {
            assert!(MilliCpu::from_cores(cores).is_err(), "{cores}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        for (text, millis) in [("500ms", 500), ("1s", 1000), ("1.5s", 1500), ("1m 30s", 90_000), ("24h", 86_400_000)] {
            assert_eq!(Millis::parse(text).map(Millis::get), Ok(millis), "{text}");
        }
        for text in ["", "1", "0s", "-1s", "25h", "1us", "soon", "1 fortnight"] {
            assert!(Millis::parse(text).is_err(), "{text}");
        }
    }
}
