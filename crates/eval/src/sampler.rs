//! Which token comes next.

/// How a token is chosen from logits. The order is that of Transformers: penalty, temperature, top-k, top-p, min-p,
/// draw.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the largest logit, of equal ones the lowest id.
    pub temperature: f64,
    /// Only so many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability; 1 for all.
    pub top_p: f64,
    /// Only tokens at least this fraction as likely as the likeliest; 0 for all.
    pub min_p: f64,
    /// Logits of tokens that the text holds are divided by it if positive, multiplied if negative; 1 for none.
    pub repeat_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, seed: 0 }
    }
}

/// How many of the likeliest are put in order first: with top-p a nucleus is rarely larger, and a vocabulary of
/// 248,320 takes long to sort.
const FIRST_SORTED: usize = 1024;

impl Sampling {
    /// The token after `text`. A draw depends on the seed and on how long the text is, not on draws before: a text that
    /// was saved and goes on is the text that was not.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn choose(&self, logits: &[f64], text: &[u32]) -> u32 {
        let penalised;
        let logits = if self.repeat_penalty == 1.0 {
            logits
        } else {
            penalised = self.penalise(logits, text);
            &penalised
        };
        if self.temperature == 0.0 {
            return largest(logits);
        }
        let (tokens, weights) = self.candidates(logits);
        let total: f64 = weights.iter().sum();
        let mut left = uniform(self.seed, text.len() as u64) * total;
        for (token, weight) in tokens.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding has left a little: the last that can be drawn.
        let last = weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
        tokens[last]
    }

    fn penalise(&self, logits: &[f64], text: &[u32]) -> Vec<f64> {
        let mut logits = logits.to_vec();
        let mut seen = text.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit =
                    if *logit > 0.0 { *logit / self.repeat_penalty } else { *logit * self.repeat_penalty };
            }
        }
        logits
    }

    /// What may be drawn, the likeliest first, and weights proportional to probabilities.
    fn candidates(&self, logits: &[f64]) -> (Vec<u32>, Vec<f64>) {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let at = |token: u32| logits[token as usize];
        let by_logit = |a: &u32, b: &u32| at(*b).total_cmp(&at(*a)).then(a.cmp(b));
        let top = at(largest(logits));
        let weight = |token: u32| libm::exp((at(token) - top) / self.temperature);
        let kept = if self.top_k == 0 { order.len() } else { self.top_k.min(order.len()) };
        // Brings the likeliest `n` of all to the front, in order.
        let sort = |order: &mut Vec<u32>, n: usize| {
            if n < order.len() {
                order.select_nth_unstable_by(n, by_logit);
            }
            order[..n].sort_unstable_by(by_logit);
        };
        let sorted = if self.top_p < 1.0 { FIRST_SORTED.min(kept) } else { kept };
        sort(&mut order, sorted);
        let mut weights: Vec<f64> = order[..kept].iter().map(|&token| weight(token)).collect();
        if self.top_p < 1.0 {
            let goal = self.top_p * weights.iter().sum::<f64>();
            let reached = |weights: &[f64]| {
                let mut sum = 0.0;
                weights.iter().position(|weight| {
                    sum += weight;
                    sum >= goal
                })
            };
            let nucleus = reached(&weights[..sorted]).unwrap_or_else(|| {
                sort(&mut order, kept);
                weights = order[..kept].iter().map(|&token| weight(token)).collect();
                reached(&weights).unwrap_or(kept - 1)
            });
            weights.truncate(nucleus + 1);
        }
        // The weight of the likeliest is 1.
        let likely = weights.iter().position(|&weight| weight < self.min_p).unwrap_or(weights.len()).max(1);
        weights.truncate(likely);
        order.truncate(likely);
        (order, weights)
    }
}

/// The id of the largest logit, the lowest of equal ones.
pub fn largest(logits: &[f64]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// A number in [0, 1) that depends on both: two rounds of SplitMix64.
fn uniform(seed: u64, position: u64) -> f64 {
    let bits = split_mix(split_mix(seed) ^ position);
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn split_mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 6] = [0.5, 2.0, -1.0, 2.0, 1.0, -3.0];

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    fn candidates(sampling: &Sampling) -> Vec<u32> {
        sampling.candidates(&LOGITS).0
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampling::default().choose(&LOGITS, &[]), 1);
        assert_eq!(largest(&[f64::NEG_INFINITY, 3.0]), 1);
    }

    #[test]
    fn a_penalty_reaches_both_signs_once_each_token() {
        let sampling = Sampling { repeat_penalty: 2.0, ..Sampling::default() };
        assert_eq!(sampling.penalise(&LOGITS, &[1, 1, 2, 99]), [0.5, 1.0, -2.0, 2.0, 1.0, -3.0]);
        assert_eq!(sampling.choose(&LOGITS, &[1]), 3);
    }

    #[test]
    fn filters_keep_the_likeliest() {
        assert_eq!(candidates(&warm()), [1, 3, 4, 0, 2, 5]);
        assert_eq!(candidates(&Sampling { top_k: 2, ..warm() }), [1, 3]);
        // e² + e² of e² + e² + e + √e + 1/e + 1/e³ = 19.6 is 0.754.
        assert_eq!(candidates(&Sampling { top_p: 0.75, ..warm() }), [1, 3]);
        assert_eq!(candidates(&Sampling { top_p: 0.76, ..warm() }), [1, 3, 4]);
        assert_eq!(candidates(&Sampling { top_p: 0.0, ..warm() }), [1]);
        // After top-k the rest is all there is.
        assert_eq!(candidates(&Sampling { top_p: 0.76, top_k: 2, ..warm() }), [1, 3]);
        // 1/e is 0.37 of the likeliest.
        assert_eq!(candidates(&Sampling { min_p: 0.36, ..warm() }), [1, 3, 4]);
        assert_eq!(candidates(&Sampling { min_p: 1.0, ..warm() }), [1, 3]);
    }

    /// A nucleus larger than what is sorted first is the nucleus of the whole.
    #[test]
    fn a_wide_nucleus_is_whole() {
        let logits: Vec<f64> = (0..4 * FIRST_SORTED).map(|n| ((n * 2741) % 4099) as f64 * 1e-9).collect();
        let sampling = Sampling { top_p: 0.75, ..warm() };
        let (tokens, weights) = sampling.candidates(&logits);
        assert!(tokens.len().abs_diff(3 * FIRST_SORTED) <= 1, "{}", tokens.len());
        assert_eq!(tokens.len(), weights.len());
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        assert_eq!(tokens, order[..tokens.len()]);
    }

    /// Frequencies are the probabilities, and a draw is a function of seed and position.
    #[test]
    fn draws_follow_the_distribution() {
        const DRAWS: usize = 20_000;
        let sampling = Sampling { seed: 7, temperature: 0.5, ..Sampling::default() };
        let mut counts = [0usize; LOGITS.len()];
        let text = vec![0; DRAWS];
        for length in 0..DRAWS {
            let token = sampling.choose(&LOGITS, &text[..length]);
            assert_eq!(token, sampling.choose(&LOGITS, &text[..length]));
            counts[token as usize] += 1;
        }
        let total: f64 = LOGITS.iter().map(|x| (x / 0.5).exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            let p = (logit / 0.5).exp() / total;
            // Five standard deviations of a binomial count, and one for small ones.
            let spread = 5.0 * (DRAWS as f64 * p * (1.0 - p)).sqrt() + 1.0;
            assert!((*count as f64 - p * DRAWS as f64).abs() < spread, "{counts:?}, {logit}");
        }
        let other = Sampling { seed: 8, ..sampling.clone() };
        let differ =
            (0..100).filter(|&n| sampling.choose(&LOGITS, &text[..n]) != other.choose(&LOGITS, &text[..n]));
        assert!(differ.count() > 20);
    }
}
