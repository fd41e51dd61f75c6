//! A whole Kvorum cluster on one thread from one seed.
