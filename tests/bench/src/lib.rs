//! How fast it is, measured against what this machine can do at the same moment.
//!
//! Every figure of ours stands beside a raw one: the same disk, the same servers, the same driver and pool, with nothing of this
//! repository in between. Raw and ours take turns, several rounds, and the medians are compared: what else the machine does meets
//! both. A figure that was taken without its raw limit says nothing.

pub mod messaging;
