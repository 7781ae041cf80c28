//! `probe ADDRESS [PATH]`: whether a program that knows nothing of the mesh serves. The health check of its container.
//!
//! Ends with 0 if GET PATH is answered with 2xx (RFC 9110 §15.3), or, without a PATH, if ADDRESS accepts a connection. It stands in
//! containers of whatever make, so it is one static file that needs nothing around it, and knows nothing but this.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

/// Longest wait for the connection, and then for each piece of the answer. Whoever runs a health check bounds the whole of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The beginning of an answer that is not over by then is no status line.
const LONGEST_STATUS_LINE: u64 = 256;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let asked = match arguments.as_slice() {
        [address] => connect(address).map(|_| ()),
        [address, path] => get(address, path),
        _ => Err("usage: probe ADDRESS [PATH], such as: probe 127.0.0.1:8080 /readyz".to_owned()),
    };
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Where nobody reads it, the exit code still tells.
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let address: SocketAddr =
        address.parse().map_err(|_| format!("{address:?} is not an address such as 127.0.0.1:8080"))?;
    TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| format!("cannot connect to {address}: {error}"))
}

fn get(address: &str, path: &str) -> Result<(), String> {
    let mut stream = connect(address)?;
    let line = ask(&mut stream, address, path).map_err(|error| format!("no answer of {address}: {error}"))?;
    let status = line.split_ascii_whitespace().nth(1).unwrap_or_default();
    if status.len() == 3 && status.starts_with('2') {
        return Ok(());
    }
    Err(format!("GET {path} was answered with {:?}", line.trim_end()))
}

/// The status line of the answer.
fn ask(stream: &mut TcpStream, address: &str, path: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST_STATUS_LINE)).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
