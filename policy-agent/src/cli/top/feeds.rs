//! Where a view gets its updates from: the keyboard, the traffic of all sandboxes again and again, and
//! the flows of the sandbox that is shown.

use std::{thread, time::Duration};

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use serde_json::Value;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::AbortHandle,
    time::sleep,
};

use super::sandbox_rates::TrafficSample;
use crate::{
    cli::{
        api_path::escape_path_segment,
        client::{ApiClient, ApiClientError, ApiLines},
    },
    net::unix_http::split_lines,
};

/// How long the thread that reads the keyboard waits until it looks whether the view has ended.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// Entries of the record that are shown at first.
const FIRST_FLOWS: usize = 500;

/// Something new to show.
pub(super) enum FeedUpdate {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The traffic of all sandboxes, or why there is none.
    Traffic(Result<Vec<TrafficSample>, String>),
    /// Entries of the record of the sandbox that is shown.
    Flows(Vec<Value>),
    /// No more entries follow.
    FlowsEnded(String),
}

/// The sources of updates.
pub(super) struct Feeds {
    client: ApiClient,
    interval: Duration,
    sender: UnboundedSender<FeedUpdate>,
    updates: UnboundedReceiver<FeedUpdate>,
    followed: Option<AbortHandle>,
}

impl Feeds {
    pub(super) fn new(client: ApiClient, interval: Duration) -> Self {
        let (sender, updates) = mpsc::unbounded_channel();
        Self { client, interval, sender, updates, followed: None }
    }

    /// Starts reading the keyboard and the traffic.
    pub(super) fn start(&self) {
        let sender = self.sender.clone();
        thread::spawn(move || read_keys(&sender));
        let (client, sender, interval) = (self.client.clone(), self.sender.clone(), self.interval);
        tokio::spawn(async move {
            loop {
                sleep(interval).await;
                let traffic = fetch_traffic(&client).await.map_err(|error| error.to_string());
                if sender.send(FeedUpdate::Traffic(traffic)).is_err() {
                    return;
                }
            }
        });
    }

    /// Waits for the next update.
    pub(super) async fn next(&mut self) -> Option<FeedUpdate> {
        self.updates.recv().await
    }

    /// Follows the flows of this sandbox instead of another.
    ///
    /// # Errors
    /// The agent does not know the sandbox, or does not answer.
    pub(super) async fn follow(&mut self, id: &str) -> Result<(), ApiClientError> {
        self.unfollow();
        let id = escape_path_segment(id);
        let path = format!("/agent/v1/sandboxes/{id}/flows?follow=true&last={FIRST_FLOWS}");
        let lines = self.client.stream_lines(&path).await?;
        let task = tokio::spawn(read_flows(lines, self.sender.clone()));
        self.followed = Some(task.abort_handle());
        Ok(())
    }

    /// Stops following, so that the kernel need not report flows.
    pub(super) fn unfollow(&mut self) {
        if let Some(task) = self.followed.take() {
            task.abort();
        }
        // What was on its way is of a sandbox that is no longer shown.
        let mut kept = Vec::new();
        while let Ok(update) = self.updates.try_recv() {
            if !matches!(update, FeedUpdate::Flows(_) | FeedUpdate::FlowsEnded(_)) {
                kept.push(update);
            }
        }
        for update in kept {
            let _ = self.sender.send(update); // this end is here
        }
    }
}

/// Asks for the traffic of all sandboxes.
///
/// # Errors
/// The agent does not answer.
pub(super) async fn fetch_traffic(client: &ApiClient) -> anyhow::Result<Vec<TrafficSample>> {
    let response = client.get("/agent/v1/traffic").await?;
    Ok(serde_json::from_slice(&response)?)
}

fn read_keys(sender: &UnboundedSender<FeedUpdate>) {
    while !sender.is_closed() {
        match event::poll(KEY_WAIT) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        let update = match event::read() {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => FeedUpdate::Key(key),
            Ok(Event::Resize(..)) => FeedUpdate::Resized,
            Ok(_) => continue,
            Err(_) => return,
        };
        if sender.send(update).is_err() {
            return;
        }
    }
}

async fn read_flows(mut body: ApiLines, sender: UnboundedSender<FeedUpdate>) {
    let problem = loop {
        let lines = match body.next().await {
            Ok(Some(lines)) => lines,
            Ok(None) => break "the agent ended the stream of flows".to_owned(),
            Err(error) => break error.to_string(),
        };
        let flows = split_lines(&lines).filter_map(|line| serde_json::from_slice(line).ok());
        if sender.send(FeedUpdate::Flows(flows.collect())).is_err() {
            return;
        }
    };
    let _ = sender.send(FeedUpdate::FlowsEnded(problem)); // the view may have ended
}
