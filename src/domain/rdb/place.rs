//! Where in an item's layout the walk is. Follows repeated fields to a fixed depth; never recurses.

use super::layout::{DEPTH_MAX, Field, Layout};

#[derive(Debug)]
pub(super) struct Place {
    layout: &'static Layout,
    frames: [Frame; DEPTH_MAX],
    depth: usize,
}

/// Fields that repeat.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fields: &'static [Field],
    at: usize,
    repeats_left: u64,
}

impl Place {
    /// At the first field of an item.
    pub(super) const fn new(layout: &'static Layout) -> Self {
        let frame = Frame { fields: layout.fields, at: 0, repeats_left: 1 };
        Self { layout, frames: [frame; DEPTH_MAX], depth: 0 }
    }

    /// As [`Place::new`], without writing what is not read before it is written again.
    #[inline]
    pub(super) fn restart(&mut self, layout: &'static Layout) {
        self.layout = layout;
        self.frames[0] = Frame { fields: layout.fields, at: 0, repeats_left: 1 };
        self.depth = 0;
    }

    #[inline]
    pub(super) fn layout(&self) -> &'static Layout {
        self.layout
    }

    #[inline]
    pub(super) fn field(&self) -> &'static Field {
        let frame = &self.frames[self.depth];
        &frame.fields[frame.at]
    }

    /// Goes to the first of these fields, which come this many times; at least once.
    #[inline]
    pub(super) fn enter(&mut self, fields: &'static [Field], repeats: u64) {
        self.depth += 1;
        self.frames[self.depth] = Frame { fields, at: 0, repeats_left: repeats };
    }

    /// Goes to the next field and says whether there is one.
    #[inline]
    pub(super) fn advance(&mut self) -> bool {
        loop {
            let frame = &mut self.frames[self.depth];
            frame.at += 1;
            if frame.at < frame.fields.len() {
                return true;
            }
            frame.repeats_left -= 1;
            if frame.repeats_left > 0 {
                frame.at = 0;
                return true;
            }
            if self.depth == 0 {
                return false;
            }
            self.depth -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LAYOUT: Layout = Layout {
        subject: "a test",
        value_type: None,
        has_field_expiry: false,
        fields: &[
            Field::Number("a"),
            Field::Many("b", &[Field::Number("c"), Field::Many("d", &[Field::Number("e")])]),
            Field::Number("f"),
        ],
    };

    #[test]
    fn repeated_fields_come_as_often_as_counted_and_then_the_next() {
        let mut place = Place::new(&LAYOUT);
        let mut names = String::new();
        loop {
            let field = place.field();
            names.push_str(field.name());
            if let Field::Many(_, fields) = field {
                place.enter(fields, 2);
            } else if !place.advance() {
                break;
            }
        }
        assert_eq!(names, "abcdeecdeef");
    }
}
