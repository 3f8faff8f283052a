//! A server for messages that does what a test asks of it, good or bad.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::PATIENCE;

/// What the server does with a request.
#[derive(Clone)]
pub(super) enum Does {
    /// Says just this.
    Answer(String),
    /// Closes the connection instead of an answer.
    HangUp,
    /// Says nothing.
    Hang,
    /// Says the status and then a body, byte by byte, until nobody listens.
    Drip { status: &'static str },
    /// The same as fast as it goes.
    Flood { status: &'static str },
}

impl Does {
    pub(super) fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let length = body.len();
        Self::Answer(format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }
}

pub(super) struct Request {
    pub(super) line: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let header = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }
}

pub(super) struct TestReceiver {
    pub(super) address: SocketAddr,
    requests: Mutex<Receiver<Request>>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    requests: usize,
    /// Connections that the client closed while it waited.
    left: usize,
}

impl TestReceiver {
    pub(super) fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let counts = Arc::new(Mutex::new(Counts::default()));
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (does, sender, counts) = (does.clone(), sender.clone(), Arc::clone(&shared));
                // Whoever hangs up has ended this connection and no other.
                thread::spawn(move || drop(serve(stream, &does, &sender, &counts)));
            }
        });
        Self {
            address,
            requests: Mutex::new(requests),
            counts,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request that came.
    pub(super) fn request(&self) -> Request {
        self.requests
            .lock()
            .unwrap()
            .recv_timeout(PATIENCE)
            .expect("a request")
    }

    pub(super) fn count(&self) -> usize {
        self.counts.lock().unwrap().requests
    }

    pub(super) fn left(&self) -> usize {
        self.counts.lock().unwrap().left
    }
}

fn serve(
    mut stream: TcpStream,
    does: &Does,
    sender: &Sender<Request>,
    counts: &Mutex<Counts>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let request = read_request(&stream)?;
    if request.line.is_empty() {
        // A connection that never came to a request, such as one whose certificate was refused.
        return Ok(());
    }
    counts.lock().unwrap().requests += 1;
    // Not every test looks at what was sent.
    let _ = sender.send(request);
    match does {
        Does::Answer(answer) => stream.write_all(answer.as_bytes()),
        Does::HangUp => Ok(()),
        Does::Hang => {
            if stream.read(&mut [0])? == 0 {
                counts.lock().unwrap().left += 1;
            }
            Ok(())
        }
        Does::Drip { status } => {
            for byte in format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").bytes() {
                stream.write_all(&[byte])?;
            }
            loop {
                stream.write_all(b".")?;
                thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        Does::Flood { status } => {
            write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut read_line = || {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok::<_, std::io::Error>(line.trim_end().to_owned())
    };
    let line = read_line()?;
    let mut headers = Vec::new();
    loop {
        let header = read_line()?;
        let Some((name, value)) = header.split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Request {
        line,
        headers,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8(body).unwrap();
    Ok(request)
}
