//! The fields of a line, in one piece: a look at hundreds of servers has tens of thousands of them.

/// Fields by their place, from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// One after the other, with nothing in between.
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Fields {
    /// A field; empty where there is none.
    pub(super) fn get(&self, field: usize) -> &str {
        let start = field.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ends.get(field).and_then(|end| self.text.get(start..*end)).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|field| self.get(field))
    }

    /// One line of CSV; HAProxy quotes what holds a comma or a quote.
    pub(super) fn csv(line: &str) -> Self {
        if !line.contains('"') {
            return line.split(',').collect();
        }
        let (mut fields, mut quoted) = (Self::default(), false);
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    fields.text.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.ends.push(fields.text.len()),
                c => fields.text.push(c),
            }
        }
        fields.ends.push(fields.text.len());
        fields
    }
}

impl<'a> FromIterator<&'a str> for Fields {
    fn from_iter<I: IntoIterator<Item = &'a str>>(all: I) -> Self {
        let mut fields = Self::default();
        for field in all {
            fields.text.push_str(field);
            fields.ends.push(fields.text.len());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::Fields;

    #[test]
    fn a_quoted_field_keeps_its_commas() {
        let fields = Fields::csv(r#"a,"b, ""c""",,d"#);
        assert_eq!(fields.iter().collect::<Vec<_>>(), ["a", r#"b, "c""#, "", "d"]);
        assert_eq!(Fields::csv("a,,d").iter().collect::<Vec<_>>(), ["a", "", "d"]);
        assert_eq!((fields.get(3), fields.get(4)), ("d", ""));
    }
}
