//! Black box tests: the real binary in network namespaces, between clients and an upstream that the tests script.
//!
//! Every test has a lab of its own (tests/README.md draws it) and asserts on bytes and on counters. Without root a
//! test says SKIPPED and why; where `CI` is `true` a skip is a failure.

mod support;

mod answers;
mod arrivals;
mod bridge;
mod cache;
mod caching;
mod capacities;
mod chains;
mod choice;
mod churn;
mod cli;
mod compare;
mod confined;
mod devices;
mod dns64;
mod egress;
mod examples;
mod faults;
mod filter;
mod frames;
mod health;
mod leases;
mod lifecycle;
mod load;
mod local;
mod log;
mod migration;
mod modes;
mod nftset;
mod once;
mod ports;
mod prefixes;
mod rate;
mod reload;
mod router;
mod shield;
mod stubs;
mod tail;
mod tier0;
mod upstreams;
mod validate;
mod views;
mod vlan;
mod ways;
mod web;
mod why;
