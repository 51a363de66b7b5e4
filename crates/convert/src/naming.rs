//! What a model is called, guessed from its folder's name as llama.cpp's converter does.

/// The words of a name, told apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NameParts {
    /// The whole, as a title: `Qwen3.5 0.8B`.
    pub title: String,
    /// What stands before a `/`.
    pub organization: Option<String>,
    /// `Qwen3.5`; none where nothing tells it from the rest.
    pub basename: Option<String>,
    /// `Instruct`.
    pub finetune: Option<String>,
    /// `v2`.
    pub version: Option<String>,
    /// `0.8B`, `35B-A3B`.
    pub size_label: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Word {
    Plain,
    Version,
    Type,
    Size,
    Finetune,
}

impl NameParts {
    /// Takes `name` apart. `parameters` tells a model's size from the length of its context.
    pub fn of(name: &str, parameters: u64) -> NameParts {
        if name.contains(' ') {
            return NameParts { title: title(name), ..NameParts::default() };
        }
        let (organization, name) = match name.split_once('/') {
            Some((organization, name)) => (Some(organization).filter(|o| !o.starts_with('.')), name),
            None => (None, name),
        };
        let mut words: Vec<(String, Word)> = (name.split('-').filter(|word| !word.is_empty()))
            .enumerate()
            .map(|(at, word)| recognise(at, word, parameters))
            .collect();
        // Sizes in words count only where none stands in digits.
        if words.iter().any(|(word, kind)| *kind == Word::Size && word.contains(|c: char| c.is_ascii_digit()))
        {
            for (word, kind) in &mut words {
                if *kind == Word::Size && word.chars().all(char::is_alphabetic) {
                    *kind = Word::Plain;
                }
            }
        }
        let plain = |(word, kind): &(String, Word)| *kind == Word::Plain && starts_with_letter(word);
        let base = words.iter().take_while(|word| plain(word) || word.1 == Word::Version).count();
        for (word, kind) in &mut words[base..] {
            // What was a size in words has come to be plain as well.
            if *kind == Word::Plain && !word.is_empty() {
                *kind = Word::Finetune;
            }
        }
        // A version at the very end is that of the model, not of its family.
        let whole = base == words.len();
        let trailing = words.iter().rev().take_while(|(_, kind)| whole && *kind == Word::Version).count();
        let base = base - trailing;
        let join = |kind: Word, from: usize| {
            let words: Vec<&str> =
                words[from..].iter().filter(|(_, k)| *k == kind).map(|(word, _)| word.as_str()).collect();
            words
        };
        let some = |words: Vec<&str>| Some(words.join("-")).filter(|joined| !joined.is_empty());
        let mut sizes = Vec::new();
        for size in join(Word::Size, 0) {
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        let (size_label, finetune) = (some(sizes), some(join(Word::Finetune, base)));
        let version = some(join(Word::Version, base));
        let basename = some(words[..base].iter().map(|(word, _)| word.as_str()).collect());
        let ambiguous = size_label.is_none() && finetune.is_none() && version.is_none();
        NameParts {
            title: title(name),
            organization: organization.map(title),
            basename: basename.filter(|_| !ambiguous),
            finetune,
            version,
            size_label,
        }
    }
}

fn starts_with_letter(word: &str) -> bool {
    word.chars().next().is_some_and(char::is_alphabetic)
}

/// The word in its usual spelling, and what it is.
fn recognise(at: usize, word: &str, parameters: u64) -> (String, Word) {
    let lower = word.to_ascii_lowercase();
    if is_version(lower.strip_prefix("iter").or(lower.strip_prefix('v')).unwrap_or(&lower)) {
        return (word.to_owned(), Word::Version);
    }
    if is_type(&lower) {
        return (word.to_ascii_uppercase(), Word::Type);
    }
    if at > 0 && is_size(&lower) {
        return size(word, parameters);
    }
    if at > 0 && ["chat", "instruct", "vision", "lora"].contains(&lower.as_str()) {
        return (word.to_owned(), Word::Finetune);
    }
    (word.to_owned(), Word::Plain)
}

/// `1`, `3.5`, `1.2.3`.
fn is_version(word: &str) -> bool {
    word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// `q4_k_m`, `iq2_s`, `f16`, `bf16`, `fp32`.
fn is_type(lower: &str) -> bool {
    let quantized = lower.strip_prefix('i').unwrap_or(lower).strip_prefix('q').is_some_and(|rest| {
        let mut parts = rest.split('_');
        let digit = parts.next().is_some_and(|d| d.len() == 1 && d.as_bytes()[0].is_ascii_digit());
        digit && parts.all(|part| part.chars().count() == 1)
    });
    let float = lower.strip_prefix('b').unwrap_or(lower).strip_prefix('f').is_some_and(|rest| {
        let bits = rest.strip_prefix('p').unwrap_or(rest);
        bits == "16" || bits == "32"
    });
    quantized || float
}

/// `7b`, `0.5B`, `A3B`, `8x22B`, `7b1`, `large`.
fn is_size(lower: &str) -> bool {
    if ["small", "mini", "medium", "large", "xl", "xxl"].contains(&lower) {
        return true;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| match text.split_once(['.', '_']) {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    };
    let Some(unit) = lower.find(['k', 'm', 'b', 't']) else { return false };
    let (count, behind) = (&lower[..unit], &lower[unit + 1..]);
    let behind = behind.is_empty() || (behind.len() == 1 && digits(behind));
    let times = count.split_once('x').is_some_and(|(times, count)| digits(times) && number(count));
    behind && (number(count) || count.strip_prefix('a').is_some_and(number) || times)
}

fn size(word: &str, parameters: u64) -> (String, Word) {
    let mut word = word.replace('_', ".");
    let ends_in_digit = |word: &str| word.bytes().next_back().is_some_and(|b| b.is_ascii_digit());
    if ends_in_digit(&word) {
        // 7b1 is 7.1b.
        let (rest, tail) = word.split_at(word.len() - 2);
        word = format!("{rest}.{}{}", &tail[1..], &tail[..1]);
    }
    let (count, unit) = word.split_at(word.len() - 1);
    if !ends_in_digit(count) {
        return (word, Word::Size);
    }
    let unit = unit.to_ascii_uppercase();
    // A number far from the model's size is the length of its context.
    let scale = [("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)].iter().find(|(name, _)| *name == unit);
    if let (Ok(count_of), Some((_, scale)), true) = (count.parse::<f64>(), scale, parameters > 0)
        && (count_of * scale - parameters as f64).abs() > (7 * parameters / 8) as f64
    {
        return (count.to_owned() + &unit.to_ascii_lowercase(), Word::Finetune);
    }
    (count.to_owned() + &unit, Word::Size)
}

/// Words in lower case become titles, but for versions and what begins with a digit.
fn title(name: &str) -> String {
    let name = name.replace('-', " ");
    let words = name.split_whitespace().map(|word| {
        let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        let kept =
            word.starts_with(|c: char| c.is_ascii_digit()) || word.strip_prefix('v').is_some_and(is_version);
        if lower && !kept { capitalise(word) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The first letter of every run of letters is a capital.
fn capitalise(word: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for c in word.chars() {
        if c.is_alphabetic() && !inside {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        inside = c.is_alphabetic();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and parameters, and what `gguf.Metadata.get_model_id_components` of gguf-py 0.17 (llama-cpp-python 0.3.36) and
    /// its `id_to_title` made of them: title, organization, basename, finetune, version, size.
    #[test]
    fn names_come_apart_as_in_gguf_py() {
        for (name, parameters, expected) in include!("naming_cases.in") {
            let parts = NameParts::of(name, parameters);
            let found = [
                Some(parts.title.as_str()),
                parts.organization.as_deref(),
                parts.basename.as_deref(),
                parts.finetune.as_deref(),
                parts.version.as_deref(),
                parts.size_label.as_deref(),
            ];
            assert_eq!(found, expected, "{name}");
        }
    }
}
