//! What may look at a connection's messages before capnp-rpc does.

use std::rc::Rc;

use capnp::Error;
use capnp_rpc::rpc_capnp::message;

use super::frame::Peeked;
use super::wire::Wire;

/// A way past capnp-rpc. Both sides of it must agree on who deals with which message, or one of
/// them speaks of questions that the other has never heard of.
pub(crate) trait Shortcut {
    /// A message came in, and this is all of it. True if it was known by its looks and dealt with;
    /// else it is read, and received.
    fn recognise(&self, _wire: &Rc<Wire>, _message: &[u8]) -> Result<bool, Error> {
        Ok(false)
    }

    /// A message came in. True if that was all: capnp-rpc does not get to see it. An error closes
    /// the connection, and is told to the other side.
    fn receive(
        &self,
        wire: &Rc<Wire>,
        frame: &Peeked<'_>,
        message: message::Reader<'_>,
    ) -> Result<bool, Error>;

    /// Whether nothing more is to come in before something was answered.
    fn holds_back(&self) -> bool {
        false
    }

    /// capnp-rpc says this.
    fn sending(&self, message: message::Reader<'_>);

    /// Nothing more will come or go.
    fn ended(&self, reason: &Error);
}
