//! Counts of one source file, from a Rust parser.

use std::ops::RangeInclusive;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{TokenStream, TokenTree, extra::invalidate_current_thread_spans};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, ExprUnsafe, File, FnArg, ImplItem, Item, ItemFn, ItemImpl, ItemMod, Meta,
    Signature, TraitItemFn, Visibility,
};

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of the word `fn`.
    pub line: usize,
    /// Lines from there to the closing brace.
    pub lines: usize,
    /// Number of parameters without `self`.
    pub parameters: usize,
    /// True if it is compiled only for tests.
    pub is_test: bool,
}

/// Counts of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Functions in the order of their lines.
    pub functions: Vec<Function>,
    /// All lines.
    pub lines: usize,
    /// Lines of code outside tests, without blank lines and comments.
    pub code: usize,
    /// Lines of code in tests.
    pub tests: usize,
    /// Lines that begin with `//`, outside tests.
    pub comments: usize,
    /// Lines that begin with `///` or `//!`, outside tests.
    pub docs: usize,
    /// `unsafe` blocks and implementations, outside tests.
    pub unsafes: usize,
    /// Lines that begin with `// SAFETY:`, outside tests.
    pub safeties: usize,
    /// Items and methods that are `pub`, outside tests. Modules in other files and re-exports are documented elsewhere.
    pub publics: usize,
    /// Those with a doc comment.
    pub documented: usize,
    /// True if the file begins with a doc comment.
    pub has_module_doc: bool,
    /// Modules in other files that are compiled only for tests.
    pub test_modules: Vec<String>,
}

impl Reading {
    /// Parses a file; `is_all_tests` if its path marks it as tests.
    ///
    /// # Errors
    /// The file is not valid Rust.
    pub fn of(text: &str, is_all_tests: bool) -> Result<Self> {
        let tokens = text.parse::<TokenStream>();
        let tokens = tokens.map_err(|error| anyhow!("no Rust: {error}"))?;
        let file: File = syn::parse2(tokens.clone()).context("no Rust")?;
        let mut visitor = Visitor {
            is_test: is_all_tests,
            ..Visitor::default()
        };
        visitor.visit_file(&file);
        mark_texts(tokens, &mut visitor.texts);
        // Spans are no longer needed, and those of all files would take much memory.
        invalidate_current_thread_spans();
        let mut reading = visitor.reading;
        reading.has_module_doc = has_doc(&file.attrs);
        reading.lines = text.lines().count();
        for (number, line) in (1..).zip(text.lines()) {
            let is_in = |ranges: &[RangeInclusive<usize>]| {
                ranges.iter().any(|range| range.contains(&number))
            };
            let is_test = is_all_tests || is_in(&visitor.tests);
            reading.count(line.trim(), is_test, is_in(&visitor.texts));
        }
        Ok(reading)
    }

    /// Counts a line; `is_text` if it begins inside a literal.
    fn count(&mut self, line: &str, is_test: bool, is_text: bool) {
        let is_comment = line.starts_with("//") && !is_text;
        let kind = match (is_test, is_comment) {
            _ if line.is_empty() => return,
            (true, true) => return,
            (true, false) => &mut self.tests,
            (false, false) => &mut self.code,
            (false, true) if line.starts_with("///") || line.starts_with("//!") => &mut self.docs,
            (false, true) => {
                self.safeties += usize::from(line.starts_with("// SAFETY:"));
                &mut self.comments
            }
        };
        *kind += 1;
    }
}

#[derive(Default)]
struct Visitor {
    reading: Reading,
    is_test: bool,
    /// Lines of items compiled only for tests.
    tests: Vec<RangeInclusive<usize>>,
    /// Lines that begin inside a literal.
    texts: Vec<RangeInclusive<usize>>,
}

impl Visitor {
    /// Visits an item with attributes, which may mark it as a test.
    fn enter(
        &mut self,
        attributes: &[Attribute],
        span: proc_macro2::Span,
        go: impl FnOnce(&mut Self),
    ) {
        let outer = self.is_test;
        if attributes.iter().any(is_for_tests) {
            self.is_test = true;
            self.tests.push(span.start().line..=span.end().line);
        }
        go(self);
        self.is_test = outer;
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let line = signature.fn_token.span.start().line;
        let parameters = signature.inputs.iter();
        self.reading.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: block.brace_token.span.close().end().line + 1 - line,
            parameters: parameters
                .filter(|input| matches!(input, FnArg::Typed(_)))
                .count(),
            is_test: self.is_test,
        });
    }

    fn public(&mut self, visibility: &Visibility, attributes: &[Attribute]) {
        if matches!(visibility, Visibility::Public(_)) && !self.is_test {
            self.reading.publics += 1;
            self.reading.documented += usize::from(has_doc(attributes));
        }
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, visibility) = head(item);
        self.enter(attributes, item.span(), |visitor| {
            if let Some(visibility) = visibility {
                visitor.public(visibility, attributes);
            }
            visit::visit_item(visitor, item);
        });
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, block: &'ast ItemImpl) {
        let is_unsafe = block.unsafety.is_some() && !self.is_test;
        self.reading.unsafes += usize::from(is_unsafe);
        visit::visit_item_impl(self, block);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.content.is_none() && self.is_test {
            self.reading.test_modules.push(module.ident.to_string());
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let ImplItem::Fn(method) = item else {
            return visit::visit_impl_item(self, item);
        };
        self.enter(&method.attrs, item.span(), |visitor| {
            visitor.public(&method.vis, &method.attrs);
            visitor.function(&method.sig, &method.block);
            visit::visit_impl_item(visitor, item);
        });
    }

    fn visit_trait_item_fn(&mut self, method: &'ast TraitItemFn) {
        if let Some(block) = &method.default {
            self.function(&method.sig, block);
        }
        visit::visit_trait_item_fn(self, method);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast ExprUnsafe) {
        self.reading.unsafes += usize::from(!self.is_test);
        visit::visit_expr_unsafe(self, block);
    }
}

/// An item's attributes, and its visibility if its doc comment belongs here.
fn head(item: &Item) -> (&[Attribute], Option<&Visibility>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.vis)),
        Item::Enum(item) => (&item.attrs, Some(&item.vis)),
        Item::Fn(item) => (&item.attrs, Some(&item.vis)),
        Item::Mod(item) => (&item.attrs, item.content.as_ref().map(|_| &item.vis)),
        Item::Static(item) => (&item.attrs, Some(&item.vis)),
        Item::Struct(item) => (&item.attrs, Some(&item.vis)),
        Item::Trait(item) => (&item.attrs, Some(&item.vis)),
        Item::TraitAlias(item) => (&item.attrs, Some(&item.vis)),
        Item::Type(item) => (&item.attrs, Some(&item.vis)),
        Item::Union(item) => (&item.attrs, Some(&item.vis)),
        Item::ExternCrate(item) => (&item.attrs, None),
        Item::ForeignMod(item) => (&item.attrs, None),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, None),
        Item::Use(item) => (&item.attrs, None),
        Item::Verbatim(_) | _ => (&[], None),
    }
}

fn has_doc(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("doc"))
}

/// True for `#[test]` and `#[cfg(test)]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    let is_cfg_test = || match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::Path(_) | Meta::NameValue(_) => false,
    };
    attribute.path().is_ident("test") || is_cfg_test()
}

/// Marks lines that continue a literal: `//` there is not a comment.
fn mark_texts(tokens: TokenStream, texts: &mut Vec<RangeInclusive<usize>>) {
    let mut open = vec![tokens.into_iter()];
    // Bound: the nesting of brackets in the file.
    while let Some(tokens) = open.last_mut() {
        match tokens.next() {
            Some(TokenTree::Group(group)) => open.push(group.stream().into_iter()),
            Some(TokenTree::Literal(literal)) => {
                let span = literal.span();
                texts.push(span.start().line + 1..=span.end().line);
            }
            Some(TokenTree::Ident(_) | TokenTree::Punct(_)) => (),
            None => drop(open.pop()),
        }
    }
    texts.retain(|lines| !lines.is_empty());
}

#[cfg(test)]
mod tests {
    use super::{Function, Reading};

    const TEXT: &str = r##"//! What it is.

use std::fmt;

/// Documented.
pub struct A;

pub struct B;

impl A {
    /// Documented.
    pub fn method(&self, one: u8, other: u8) -> u8 {
        // Why.
        one + other
    }
}

// SAFETY: nothing is in it.
unsafe impl Send for A {}

fn text() -> &'static str {
    // SAFETY: it is ASCII.
    let _ = unsafe { std::str::from_utf8_unchecked(b"a") };
    "begins
    // no comment
ends"
}

trait T {
    fn without();
    fn with(self) {}
}

#[cfg(test)]
mod elsewhere;
mod other;

#[cfg(test)]
mod tests {
    // Not counted.
    pub fn helper() {
        unsafe { work() }
    }

    #[test]
    fn holds() {
        fn inner() {}
    }
}
"##;

    #[test]
    fn everything_is_counted_once() {
        let reading = Reading::of(TEXT, false).expect("Rust");
        let functions: Vec<_> = reading
            .functions
            .iter()
            .map(|function| {
                let Function {
                    name,
                    line,
                    lines,
                    parameters,
                    is_test,
                } = function;
                (name.as_str(), *line, *lines, *parameters, *is_test)
            })
            .collect();
        assert_eq!(
            functions,
            [
                ("method", 12, 4, 2, false),
                ("text", 21, 7, 0, false),
                ("with", 31, 1, 0, false),
                ("helper", 41, 3, 0, true),
                ("holds", 46, 3, 0, true),
                ("inner", 47, 1, 0, true),
            ]
        );
        let Reading {
            lines,
            code,
            tests,
            comments,
            docs,
            ..
        } = reading;
        assert_eq!((lines, code, tests, comments, docs), (49, 20, 12, 3, 3));
        assert_eq!((reading.unsafes, reading.safeties), (2, 2));
        assert_eq!((reading.publics, reading.documented), (3, 2));
        assert!(reading.has_module_doc);
        assert_eq!(reading.test_modules, ["elsewhere"]);
    }

    #[test]
    fn a_file_of_tests_has_no_code() {
        let reading = Reading::of(TEXT, true).expect("Rust");
        assert!(reading.functions.iter().all(|function| function.is_test));
        assert_eq!((reading.code, reading.comments, reading.docs), (0, 0, 0));
        assert_eq!((reading.tests, reading.unsafes), (32, 0));
        assert!(Reading::of("fn broken(", false).is_err());
    }
}
