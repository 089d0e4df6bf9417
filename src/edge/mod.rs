//! The self-hosted edge: accepts agents, gives their endpoints public URLs and forwards
//! visitors to them. One process on one machine. Nothing of the agent is used here.
//!
//! `run` starts and stops it, [`reload`] applies a changed configuration, [`listeners`]
//! accepts connections, [`agents`] serves agents
//! and [`visitors`] serves visitors. Their threads share an [`Edge`].

pub mod accounts;
pub mod actions;
pub mod agents;
pub mod args;
pub mod certificates;
pub mod commands;
pub mod config;
pub mod context;
pub mod expiry;
pub mod fetch;
pub mod jwt;
pub mod listeners;
pub mod login;
pub mod login_failures;
pub mod names;
pub mod parking;
pub mod places;
pub mod policy;
pub mod proxies;
pub mod regex;
pub mod reload;
pub mod required_literal;
pub mod rest;
pub mod restrictions;
pub mod routes;
mod run;
pub mod settings;
pub mod shares;
pub mod state;
pub mod store;
pub mod token;
pub mod visitors;
pub mod workers;
pub mod x509_details;

pub use context::Edge;
