//! Markup that nothing from outside can get into: tags are written in our source, everything else is text.

/// A page under construction.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Adds markup. Only what stands in our source is `'static`; what a task printed is not.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(visible(other)),
            }
        }
        self
    }

    /// Adds a number.
    pub fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.0.push_str(&number.into().to_string());
        self
    }

    /// Adds an attribute, with the blank before it and quotes around its value.
    pub fn attribute(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"").text(value).raw("\"")
    }

    /// The page.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// A character that can be seen in place of one that cannot, or that turns the text around it (UAX 9).
fn visible(character: char) -> char {
    match character {
        '\n' | '\t' => character,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        other => other,
    }
}

/// What a task wrote, without what only a terminal understands: sequences of colour and movement (ECMA-48) are left
/// out, and a line that was written over stands below the one before.
pub fn plain(output: &str) -> String {
    let mut text = String::with_capacity(output.len());
    let mut rest = output.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                // Parameters, then one final byte. Anything else ends it, too, and stays.
                while rest.next_if(|next| ('\u{20}'..='\u{3f}').contains(next)).is_some() {}
                rest.next_if(|next| ('\u{40}'..='\u{7e}').contains(next));
            }
            '\u{1b}' if rest.next_if_eq(&']').is_some() => {
                // A title or a link, up to BEL or ESC \; never beyond the line.
                while rest.next_if(|next| !matches!(next, '\u{7}' | '\u{1b}' | '\n')).is_some() {}
                if rest.next_if_eq(&'\u{7}').is_none() && rest.next_if_eq(&'\u{1b}').is_some() {
                    rest.next_if_eq(&'\\');
                }
            }
            '\r' if matches!(rest.peek(), Some('\n') | None) => {}
            '\r' => text.push('\n'),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text() {
        let mut html = Html::default();
        html.raw("<p").attribute("title", "\"><b>'").raw(">").text("a < b & \u{1b}\u{202e}c\u{7f}\n").raw("</p>").number(7_u32);
        let text = String::from_utf8(html.into_bytes()).unwrap();
        assert_eq!(text, "<p title=\"&quot;&gt;&lt;b&gt;&#39;\">a &lt; b &amp; \u{241b}\u{fffd}c\u{2421}\n</p>7");
    }

    #[test]
    fn colours_and_movements_are_left_out() {
        let table = [
            ("\u{1b}[1;31mred\u{1b}[0m\n", "red\n"),
            ("10%\r20%\r\ndone\r", "10%\n20%\ndone"),
            ("\u{1b}]0;title\u{7}a\u{1b}]8;;http://x\u{1b}\\link", "alink"),
            ("\u{1b}]open\nnext", "\nnext"),
            ("\u{1b}[", ""),
            ("\u{1b}(B", "\u{1b}(B"),
        ];
        for (written, shown) in table {
            assert_eq!(plain(written), shown, "{written:?}");
        }
    }
}
