//! Metrics of a driver in a machine of its own, at an address of this one.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::lab::http_get;

/// Who has the network, and the address there.
type Place = (Option<u32>, String);

pub(crate) struct Exposed {
    pub(crate) address: String,
    place: Arc<Mutex<Place>>,
}

impl Exposed {
    pub(crate) fn new(place: Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let place = Arc::new(Mutex::new(place));
        let shared = place.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let (network, address) = shared.lock().unwrap().clone();
                std::thread::spawn(move || {
                    // Who does not get an answer notes that the driver is down.
                    let _ = answer(stream, network, &address);
                });
            }
        });
        Self { address, place }
    }

    /// The driver was started anew.
    pub(crate) fn moved(&self, place: Place) {
        *self.place.lock().unwrap() = place;
    }
}

fn answer(
    mut stream: std::net::TcpStream,
    network: Option<u32>,
    address: &str,
) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let read = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).count();
    let text = http_get(network, address, "/metrics")?;
    if read > 0 { stream.write_all(text.as_bytes()) } else { Ok(()) }
}
