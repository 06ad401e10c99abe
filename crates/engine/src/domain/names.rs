// SPDX-License-Identifier: Apache-2.0
//! Names for containers whose users gave none: `adjective_surname`.

/// How a container may be.
const ADJECTIVES: [&str; 72] = [
    "able", "agile", "amber", "ample", "apt", "arctic", "astute", "balmy", "blithe", "bold", "brave",
    "brisk", "calm", "candid", "civil", "clever", "cosmic", "cozy", "crisp", "curious", "dapper", "daring",
    "deft", "eager", "earnest", "elegant", "exciting", "fair", "fleet", "fluent", "frank", "gentle", "glad",
    "golden", "grand", "hardy", "hearty", "humble", "jolly", "jovial", "keen", "kind", "lively", "loyal",
    "lucid", "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "placid", "polite",
    "proud", "quick", "quiet", "radiant", "ready", "robust", "serene", "sharp", "silent", "steady", "sunny",
    "swift", "tidy", "upbeat", "vivid", "warm", "witty",
];

/// People who found things out.
const SURNAMES: [&str; 96] = [
    "abel",
    "agnesi",
    "alhazen",
    "ampere",
    "archimedes",
    "avogadro",
    "babbage",
    "banach",
    "bardeen",
    "bernoulli",
    "bohr",
    "boltzmann",
    "bose",
    "boole",
    "brahe",
    "cantor",
    "carnot",
    "cauchy",
    "cavendish",
    "cayley",
    "chandrasekhar",
    "chebyshev",
    "church",
    "copernicus",
    "coulomb",
    "curie",
    "dalton",
    "darwin",
    "dijkstra",
    "dirac",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fibonacci",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "goeppert",
    "haber",
    "hamilton",
    "heisenberg",
    "herschel",
    "hertz",
    "hilbert",
    "hodgkin",
    "hooke",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacobi",
    "joule",
    "kelvin",
    "kepler",
    "khayyam",
    "kovalevskaya",
    "lagrange",
    "laplace",
    "lavoisier",
    "leibniz",
    "linnaeus",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "mendeleev",
    "mirzakhani",
    "nash",
    "newton",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "planck",
    "poincare",
    "ptolemy",
    "raman",
    "ramanujan",
    "riemann",
    "rutherford",
    "schrodinger",
    "shannon",
    "tesla",
    "turing",
    "volta",
    "wiles",
    "yukawa",
];

/// A name drawn with `random`; from the third attempt on with a number behind
/// it, as names run out.
#[must_use]
pub fn draw(random: u64, attempt: u32) -> String {
    let [a, s] = [ADJECTIVES.len() as u64, SURNAMES.len() as u64];
    let adjective = ADJECTIVES[usize::try_from(random % a).unwrap_or(0)];
    let surname = SURNAMES[usize::try_from(random / a % s).unwrap_or(0)];
    if attempt < 3 {
        return format!("{adjective}_{surname}");
    }
    format!("{adjective}_{surname}{}", random / a / s % 10_u64.saturating_pow(attempt.min(9)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth::ids::ContainerName;
    use std::collections::HashSet;

    #[test]
    fn the_lists_have_no_doubles() {
        assert_eq!(ADJECTIVES.iter().collect::<HashSet<_>>().len(), ADJECTIVES.len());
        assert_eq!(SURNAMES.iter().collect::<HashSet<_>>().len(), SURNAMES.len());
    }

    #[test]
    fn every_name_can_be_had_and_is_a_valid_one() {
        let all: HashSet<_> = (0..(ADJECTIVES.len() * SURNAMES.len()) as u64).map(|n| draw(n, 0)).collect();
        assert_eq!(all.len(), ADJECTIVES.len() * SURNAMES.len());
        assert!(all.contains("exciting_chebyshev"));
        for name in &all {
            assert!(name.parse::<ContainerName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn later_attempts_have_more_names_to_draw_from() {
        let many: HashSet<_> = (0..100_u64).map(|n| draw(n * 7919 * 7000, 5)).collect();
        assert!(many.len() > 90);
        assert!(draw(u64::MAX, 40).parse::<ContainerName>().is_ok());
    }
}
