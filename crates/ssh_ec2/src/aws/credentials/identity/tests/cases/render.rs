//! From a draft to the bytes of its files, in the many ways in which people write them.

use super::{Case, Draft, File, HOME, Section, Setting};

impl Draft {
    pub(super) fn finish(mut self) -> Case {
        let (config, credentials) = (self.config.clone(), self.credentials.clone());
        let text = self.render(&config, File::Config);
        let path = self.path("AWS_CONFIG_FILE", "config");
        self.case.files.insert(path, text);
        let text = self.render(&credentials, File::Credentials);
        let path = self.path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        self.case.files.insert(path, text);
        self.case
    }

    /// Where a file is, and the variable that says so.
    fn path(&mut self, variable: &'static str, usual: &str) -> String {
        if self.chance(85) {
            return format!("{HOME}/.aws/{usual}");
        }
        self.rule(variable);
        if self.chance(50) {
            self.rule("paths are expanded");
        }
        if self.case.rules.contains("paths are expanded") {
            self.set_env("DIRECTORY", "/R/elsewhere");
            let (value, path) = self.pick(&[
                ("~/other", "/R/home/other"),
                ("$DIRECTORY/other", "/R/elsewhere/other"),
                ("${DIRECTORY}/x", "/R/elsewhere/x"),
                ("~/$UNSET/x", "/R/home/$UNSET/x"),
            ]);
            self.set_env(variable, format!("{value}-{usual}"));
            return format!("{path}-{usual}");
        }
        self.set_env(variable, format!("/R/plain-{usual}"));
        format!("/R/plain-{usual}")
    }

    fn render(&mut self, sections: &[Section], file: File) -> Vec<u8> {
        let mut text = String::new();
        // One mistake makes a whole file unreadable.
        let twice = (self.chance(2) && !sections.is_empty()).then(|| self.random.below(sections.len()));
        let indentation = if self.chance(30) { self.pick(&["  ", "    ", "\t"]) } else { "" };
        let ragged = self.chance(5);
        for (at, section) in sections.iter().enumerate() {
            self.comment(&mut text, indentation);
            let header = self.header(section, file);
            text += &header;
            text.push('\n');
            for (option, setting) in &section.settings {
                self.comment(&mut text, indentation);
                let mut indentation = indentation.to_owned();
                if ragged {
                    indentation = " ".repeat(self.random.below(4));
                }
                self.option(&mut text, &indentation, option, setting);
            }
            if twice == Some(at) {
                self.rule("nothing is there twice");
                match section.settings.first() {
                    Some((option, setting)) if self.chance(50) => {
                        self.option(&mut text, indentation, option, &setting.clone());
                    }
                    _ => text += &format!("{header}\n"),
                }
            }
            if self.chance(20) {
                text.push('\n');
            }
        }
        self.encode(text)
    }

    fn comment(&mut self, text: &mut String, indentation: &str) {
        if !self.chance(12) {
            return;
        }
        let (rule, sign) = self.pick(&[("semicolons begin comments", ';'), ("hashes begin comments", '#')]);
        self.rule(rule);
        let indentation = if self.chance(50) { indentation } else { "" };
        *text += &format!("{indentation}{sign} region = from-a-comment\n");
    }

    fn header(&mut self, section: &Section, file: File) -> String {
        let name = &section.name;
        let header = match (file, section.kind) {
            (File::Credentials, _) | (_, "") => format!("[{name}]"),
            (_, "default") => "[default]".to_owned(),
            (_, "profile") if name == "default" && self.chance(70) => "[default]".to_owned(),
            (_, kind) => {
                let kind = if self.chance(3) {
                    self.rule("the word may have a tail");
                    format!("{kind}s")
                } else {
                    kind.to_owned()
                };
                if !name.is_ascii() {
                    self.rule("names have any letter");
                }
                format!("[{kind} {}]", self.quoted(name))
            }
        };
        match self.random.below(30) {
            0 => {
                self.rule("text after a header");
                header + " /* note */"
            }
            1 => {
                self.rule("text after a header");
                header + "# note"
            }
            2 if self.chance(40) => {
                self.rule("a header ends at its last bracket");
                header + " # [note]"
            }
            _ => header,
        }
    }

    fn quoted(&mut self, name: &str) -> String {
        let plain = name.chars().all(|character| !" '\"\\".contains(character));
        if plain && !self.chance(15) {
            return name.to_owned();
        }
        if self.chance(4) {
            // A mistake that many make: two words.
            return name.to_owned();
        }
        self.rule("names are quoted");
        match self.random.below(3) {
            0 if !name.contains('\'') => format!("'{name}'"),
            1 => {
                let escape = |character: char| match character {
                    ' ' | '\'' | '"' | '\\' => format!("\\{character}"),
                    other => other.to_string(),
                };
                name.chars().map(escape).collect()
            }
            _ => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }

    fn option(&mut self, text: &mut String, indentation: &str, option: &str, setting: &Setting) {
        let mut name = option.to_owned();
        if self.chance(5) {
            self.rule("options have no case");
            name = name.to_uppercase();
        }
        let mut sign = " = ";
        if self.chance(6) {
            self.rule("colons are delimiters");
            sign = ": ";
        } else if self.chance(20) {
            sign = "=";
        }
        match setting {
            Setting::Text(value) => {
                let value = value.replace('\n', &format!("\n{indentation}  "));
                *text += &format!("{indentation}{name}{sign}{value}\n");
            }
            Setting::Nested(nested) => {
                *text += &format!("{indentation}{name}{}\n", sign.trim_end());
                for (name, value) in nested {
                    *text += &format!("{indentation}    {name} = {value}\n");
                }
            }
        }
    }

    fn encode(&mut self, text: String) -> Vec<u8> {
        match self.random.below(100) {
            0 => {
                self.rule("a byte order mark is no blank");
                format!("\u{feff}{text}").into_bytes()
            }
            1 => {
                self.rule("text is UTF-8");
                [b"# caf\xe9\n", text.as_bytes()].concat()
            }
            2 | 8 => {
                self.rule("a carriage return ends a line");
                text.replace('\n', "\r").into_bytes()
            }
            3..=7 => text.replace('\n', "\r\n").into_bytes(),
            _ => text.into_bytes(),
        }
    }
}
