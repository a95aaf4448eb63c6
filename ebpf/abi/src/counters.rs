//! Counters with names: one enum is the index, the match arm, the metric name and its help text.

/// Makes an enum of counters. The doc comment of a variant is its metric's help, the text behind it the metric's name.
///
/// ```
/// xdnsd_abi::counters! {
///     /// What became of a packet.
///     pub enum Outcome: u32 {
///         /// Sent on its way.
///         Forwarded = "forwarded",
///         /// No route leads there.
///         Unroutable = "unroutable",
///     }
/// }
/// assert_eq!(Outcome::COUNT, 2);
/// assert_eq!(Outcome::Unroutable as u32, 1);
/// assert_eq!(Outcome::Unroutable.name(), "unroutable");
/// assert_eq!(Outcome::Unroutable.help(), " No route leads there.");
/// assert_eq!(Outcome::ALL, [Outcome::Forwarded, Outcome::Unroutable]);
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident: $index:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $metric:literal,)*
        }
    ) => {
        $(#[doc = $about])+
        #[repr($index)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)* }

        impl $name {
            /// All counters, in the order of their indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Number of counters.
            pub const COUNT: $index = Self::ALL.len() as $index;

            /// Name of the metric.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $metric,)* }
            }

            /// Help text of the metric: the variant's doc comment.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)* }
            }
        }
    };
}
