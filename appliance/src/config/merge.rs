//! Sections of several files become one table.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::error::ConfigText;
use super::schema::SECTIONS;

/// Adds the sections of a further file to those before. A key that stands in both is noted with both places.
pub fn merge<'i>(source: &mut ConfigText, sections: &mut DeTable<'i>, more: DeTable<'i>) {
    for (name, value) in more {
        match sections.remove_entry(name.get_ref().as_ref()) {
            None => {
                sections.insert(name, value);
            }
            Some((first, there)) => {
                let both = join(source, (&first, there), (&name, value));
                sections.insert(first, both);
            }
        }
    }
}

type Name<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

fn join<'i>(
    source: &mut ConfigText,
    (first, there): (&Name<'i>, Value<'i>),
    (name, more): (&Name<'i>, Value<'i>),
) -> Value<'i> {
    let word = name.get_ref().as_ref();
    let (span, is_other) = (there.span(), !there.get_ref().same_type(more.get_ref()));
    let is_many = SECTIONS
        .iter()
        .any(|section| section.name == word && section.many);
    let joined = match (there.into_inner(), more.into_inner()) {
        (there, more) if is_many => {
            let mut all = DeArray::new();
            let of_first = each(span.clone(), there);
            let all_of = of_first.into_iter().chain(each(name.span(), more));
            all_of.for_each(|value| all.push(value));
            DeValue::Array(all)
        }
        (DeValue::Table(mut there), DeValue::Table(more)) => {
            for (key, value) in more {
                if let Some((earlier, _)) = there.get_key_value(key.get_ref().as_ref()) {
                    twice(
                        source,
                        &format!("{word}.{}", key.get_ref()),
                        (earlier, &key),
                    );
                } else {
                    there.insert(key, value);
                }
            }
            DeValue::Table(there)
        }
        (there, _) => {
            // What a section is not is told when it is read.
            if !is_other {
                twice(source, word, (first, name));
            }
            there
        }
    };
    Spanned::new(span, joined)
}

/// The sections of a value, of which a table alone is one.
fn each<'i>(span: Range<usize>, value: DeValue<'i>) -> Vec<Value<'i>> {
    if let DeValue::Array(list) = value {
        list.into_iter().collect()
    } else {
        vec![Spanned::new(span, value)]
    }
}

/// Notes a key that stands in two files.
fn twice(source: &mut ConfigText, path: &str, (first, again): (&Name<'_>, &Name<'_>)) {
    let (file, position) = source.place(first.span().start);
    let problem = format!(
        "`{}` stands twice, first in {file}:{}",
        again.get_ref(),
        position.line
    );
    source.fault_at(again.span().start, path, problem, "");
}
