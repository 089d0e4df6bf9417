//! Record of the last update, a small file beside the program: how often the new program was
//! started without a session, and which serial numbers were seen. Parsing and decisions only.

use super::version::Version;
use crate::config::update_key::UpdateKey;
use crate::http1::text::decimal;

/// Starts of a new program without a session before it is replaced by the old one.
const MAX_STARTS: u64 = 3;

/// First line of the file.
const FORMAT: &str = "culvert-update-record 1";

/// Content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateRecord {
    /// Version before the update.
    pub from: String,
    /// Version after it.
    pub to: String,
    /// Serial number of the manifest.
    pub serial: u64,
    /// Starts of the new program, until its first session.
    pub starts: Option<u64>,
    /// Serial number of a manifest whose program was replaced by the old one.
    pub bad: Option<u64>,
    /// Keys of manifests that were installed.
    pub keys: Vec<UpdateKey>,
}

/// Consequence of a start.
#[derive(Debug, PartialEq, Eq)]
pub enum StartCheck {
    /// The program is confirmed.
    Confirmed,
    /// The program is new. The record is to be written.
    OnTrial(UpdateRecord),
    /// The new program has failed too often.
    RollBack,
}

impl UpdateRecord {
    /// Parses the file. A damaged file is an empty record: it only loses its protections.
    pub fn parse(text: &str) -> UpdateRecord {
        let mut record = UpdateRecord::default();
        let mut lines = text.split('\n');
        if lines.next() != Some(FORMAT) {
            return record;
        }
        for (key, value) in lines.filter_map(|line| line.split_once(' ')) {
            match key {
                "from" => record.from = value.to_owned(),
                "to" => record.to = value.to_owned(),
                "serial" => record.serial = decimal(value.as_bytes()).unwrap_or_default(),
                "starts" => record.starts = decimal(value.as_bytes()),
                "bad" => record.bad = decimal(value.as_bytes()),
                "key" => record.keys.extend(UpdateKey::parse(value)),
                _ => {}
            }
        }
        record
    }

    /// Returns the form that [`Self::parse`] reads.
    pub fn text(&self) -> String {
        let UpdateRecord { from, to, serial, .. } = self;
        let mut text = format!("{FORMAT}\nfrom {from}\nto {to}\nserial {serial}\n");
        for (key, number) in [("starts", self.starts), ("bad", self.bad)] {
            if let Some(number) = number {
                text.push_str(&format!("{key} {number}\n"));
            }
        }
        for key in &self.keys {
            text.push_str(&format!("key {}\n", key.text()));
        }
        text
    }

    /// Returns the consequence of a start of the program with this version.
    pub fn start(self, version: &Version) -> StartCheck {
        match self.starts {
            // After a power cut between the record and the program, the old one starts.
            Some(starts) if self.to == version.to_string() => match starts >= MAX_STARTS {
                true => StartCheck::RollBack,
                false => StartCheck::OnTrial(UpdateRecord { starts: Some(starts + 1), ..self }),
            },
            _ => StartCheck::Confirmed,
        }
    }

    /// Returns the record after the program was replaced by the old one.
    pub fn rolled_back(self, is_bad: bool) -> UpdateRecord {
        UpdateRecord {
            bad: if is_bad { Some(self.serial) } else { self.bad },
            starts: None,
            to: self.from.clone(),
            from: self.to,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(starts: Option<u64>) -> UpdateRecord {
        let key = "RWQ2veAqwxPafE3i1tjPkFskT5Cn2SObm6YzMPRw84gIVSFKFU0dgEwE";
        UpdateRecord {
            from: "0.1.0".to_owned(),
            to: "0.2.0".to_owned(),
            serial: 7,
            starts,
            bad: Some(6),
            keys: vec![UpdateKey::parse(key).unwrap()],
        }
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        for record in [record(None), record(Some(2)), UpdateRecord::default()] {
            assert_eq!(UpdateRecord::parse(&record.text()), record);
        }
        for damaged in ["", "x\nto 0.2.0\nstarts 9\n", "culvert-update-record 1\nstarts x\n"] {
            assert_eq!(UpdateRecord::parse(damaged), UpdateRecord::default());
        }
    }

    #[test]
    fn the_fourth_start_without_a_session_ends_the_trial() {
        let (new, old) = (Version::parse("0.2.0").unwrap(), Version::parse("0.1.0").unwrap());
        let mut now = record(Some(0));
        for n in 1..=3 {
            assert_eq!(now.clone().start(&old), StartCheck::Confirmed);
            now = match now.start(&new) {
                StartCheck::OnTrial(next) => next,
                other => panic!("{other:?}"),
            };
            assert_eq!(now.starts, Some(n));
        }
        assert_eq!(now.clone().start(&new), StartCheck::RollBack);
        let back = now.clone().rolled_back(true);
        assert_eq!((back.bad, back.starts, back.to.as_str()), (Some(7), None, "0.1.0"));
        assert_eq!(back.start(&new), StartCheck::Confirmed);
        assert_eq!(now.rolled_back(false).bad, Some(6));
        assert_eq!(record(None).start(&new), StartCheck::Confirmed);
    }
}
