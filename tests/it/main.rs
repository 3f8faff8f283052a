//! The one integration binary: behaviour through real parts.
