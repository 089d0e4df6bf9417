//! Difference between two texts, line by line, in the form of `diff -u`. Secrets are hidden,
//! because such output is copied into questions to other people.

/// Context lines around a change.
const AROUND: usize = 3;

/// Maximum number of compared pairs of lines. Beyond it, all lines between the first and the
/// last change count as changed.
const MAX_PAIRS: usize = 1 << 20;

/// Keys whose values are hidden.
const SECRETS: &[&str] = &[
    "authtoken",
    "api_key",
    "proxy_url",
    "http_proxy",
    "socks5_proxy",
    "auth",
    "basic_auth",
    "client_secret",
    "secret",
];

/// One line of the result: `' '`, `'-'` or `'+'`, and the text.
type DiffLine<'a> = (char, &'a str);

/// Returns the difference as hunks; empty without one.
pub(super) fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = compared(&old, &new);
    let changed = |at: usize| lines.get(at).is_some_and(|(sign, _)| *sign != ' ');
    let near = |at: usize| (at.saturating_sub(AROUND)..=at + AROUND).any(changed);
    let (mut text, mut hidden) = (String::new(), [false; 2]);
    let (mut was, mut numbers) = (false, [1, 1]);
    for (at, (sign, line)) in lines.iter().enumerate() {
        let shown = masked(line, &mut hidden[usize::from(*sign == '+')]);
        if near(at) {
            if !was {
                text.push_str(&format!("@@ -{} +{} @@\n", numbers[0], numbers[1]));
            }
            text.push_str(&format!("{sign}{shown}\n"));
        }
        was = near(at);
        numbers[0] += usize::from(*sign != '+');
        numbers[1] += usize::from(*sign != '-');
    }
    text
}

/// Compares by the longest common subsequence of the lines between the common beginning and the
/// common end.
fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<DiffLine<'a>> {
    let same = |(a, b): &(&&str, &&str)| a == b;
    let start = old.iter().zip(new).take_while(same).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(same).count();
    let (a, b) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    let mut lines: Vec<DiffLine> = old[..start].iter().map(|line| (' ', *line)).collect();
    if a.len().saturating_mul(b.len()) > MAX_PAIRS {
        lines.extend(a.iter().map(|line| ('-', *line)));
        lines.extend(b.iter().map(|line| ('+', *line)));
    } else {
        // Lengths of the longest common subsequence of the remaining lines, from the end.
        let width = b.len() + 1;
        let mut common = vec![0u16; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                common[i * width + j] = match a[i] == b[j] {
                    true => common[(i + 1) * width + j + 1].saturating_add(1),
                    false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                lines.push((' ', a[i]));
                (i, j) = (i + 1, j + 1);
            } else if j == b.len()
                || (i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
            {
                lines.push(('-', a[i]));
                i += 1;
            } else {
                lines.push(('+', b[j]));
                j += 1;
            }
        }
    }
    lines.extend(old_rest[old_rest.len() - end..].iter().map(|line| (' ', *line)));
    lines
}

/// Returns the line without the secret in it. `hidden`: it belongs to the values of a secret
/// key above.
fn masked(line: &str, hidden: &mut bool) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(colon) = line[from..].find(':').map(|n| from + n) {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let name = before.rsplit(|c| !is_name(c)).next().unwrap_or_default();
        if SECRETS.contains(&name) {
            let value = line[colon + 1..].trim();
            *hidden = value.is_empty() || value.starts_with(['|', '>', '[', '#']);
            return match value {
                "" => line.to_owned(),
                _ => format!("{}: ***", &line[..colon]),
            };
        }
        from = colon + 1;
    }
    if *hidden {
        let text = line.trim_start();
        let indent = &line[..line.len() - text.len()];
        // A key ends the list. Every other line may be a value.
        let is_key = text.split_once(':').is_some_and(|(name, rest)| {
            (rest.is_empty() || rest.starts_with(' '))
                && !name.is_empty()
                && name.chars().all(is_name)
        });
        *hidden = !is_key;
        if !is_key && !text.is_empty() && !text.starts_with('#') {
            return format!("{indent}{}***", if text.starts_with('-') { "- " } else { "" });
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_and_what_is_near() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\n";
        let new = "a\nb\nc\nd\ne\nF\ng\nh\ni\nj\nk\nl\nm\nn\n";
        let expected =
            "@@ -3 +3 @@\n c\n d\n e\n-f\n+F\n g\n h\n i\n@@ -11 +11 @@\n k\n l\n m\n+n\n";
        assert_eq!(unified(old, new), expected);
        assert_eq!(unified(old, old), "");
        assert_eq!(unified("", "a\n"), "@@ -1 +1 @@\n+a\n");
        assert_eq!(unified("a\n", ""), "@@ -1 +1 @@\n-a\n");
        let long = |c: char| format!("{c}\n").repeat(2_000);
        assert_eq!(unified(&long('a'), &long('b')).lines().count(), 4_001);
    }

    #[test]
    fn secrets_are_not_shown() {
        let old = "version: 2\nauthtoken: hush # mine\n\"api_key\": \"hush\"\ntunnels:\n  a: {proto: http, \
                   auth: \"u:hush\", addr: 80}\n  b:\n    basic_auth:\n      - u:hush\n\n      \
                   - \"v:hush\"\n    addr: 80\n    basic_auth: [u:hush,\n      v:hush]\n    proto: http\n";
        let shown = unified(old, "version: 3\n");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("-    addr: 80\n"), "{shown}");
        assert!(shown.contains("-authtoken: ***\n"), "{shown}");
        assert!(shown.contains("-    proto: http\n"), "{shown}");
    }
}
