//! JSON objects that are nothing but objects.
//!
//! serde's derived code also takes an array, with the fields by position: `"network": []` would be
//! an empty configuration, which allows everything.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Implements `Serialize` and `Deserialize` for structs that derive both with
/// `#[serde(remote = "Self")]`, such that they are read from objects only.
macro_rules! only {
    ($($form:ty),*) => {$(
        impl<'de> object::Fields<'de> for $form {
            fn fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // The derived function, not the trait's.
                <$form>::deserialize(deserializer)
            }
        }

        impl<'de> Deserialize<'de> for $form {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                object::read(deserializer)
            }
        }

        impl Serialize for $form {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$form>::serialize(self, serializer)
            }
        }
    )*};
}
pub(super) use only;

/// A struct's fields, from whatever holds them.
pub(super) trait Fields<'de>: Sized {
    /// What serde derives.
    fn fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Reads an object.
pub(super) fn read<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Fields<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Object(PhantomData))
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Fields<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::fields(MapAccessDeserializer::new(map))
    }
}
