//! Plain code for any processor: the definition.

use super::lane::Plain;
use super::*;

table!("scalar", Plain, 1 x 1, 8);
