//! Messages over a stream of bytes between two programs of one host: the length in four bytes, the highest first, then the message.

pub use prost::Message;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message: what may arrive from a coordinator, with what is said around it.
pub const FRAME_MAX: usize = 4 * 1024 * 1024 + 1024;

/// Reads the next message; none at the end of the stream.
///
/// Memory is taken as bytes arrive, not as they are announced.
///
/// # Errors
/// The stream broke off, or what came is no message of this kind or too long for one: nothing after it can be understood.
pub async fn read<M: Message + Default>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length);
    if usize::try_from(length).is_ok_and(|length| length > FRAME_MAX) {
        return Err(invalid(format!("a message of {length} bytes is announced, and {FRAME_MAX} is the most")));
    }
    let mut bytes = Vec::new();
    let read = from.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if read as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::decode(&*bytes).map(Some).map_err(|error| invalid(error.to_string()))
}

/// Writes a message.
///
/// # Errors
/// The stream is broken, or the message is too long for whoever reads.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl Message) -> io::Result<()> {
    let length = message.encoded_len();
    let announced = u32::try_from(length).ok().filter(|_| length <= FRAME_MAX);
    let announced = announced.ok_or_else(|| invalid(format!("a message of {length} bytes is too long to send")))?;
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend(announced.to_be_bytes());
    message.encode(&mut bytes)?;
    to.write_all(&bytes).await
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{AuditHead, CoordinatorMessage, LinkMessage, coordinator_message, link_message};

    fn message(number: u64) -> LinkMessage {
        let head = coordinator_message::Kind::AuditHead(AuditHead { number, hash: vec![7; 32] });
        LinkMessage { kind: Some(link_message::Kind::Heard(CoordinatorMessage { kind: Some(head) })) }
    }

    async fn read_all(mut bytes: &[u8]) -> io::Result<Vec<LinkMessage>> {
        let mut messages = Vec::new();
        while let Some(message) = read(&mut bytes).await? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn messages_come_out_one_by_one_as_they_went_in() {
        let mut bytes = Vec::new();
        for number in [1, 300, u64::MAX] {
            write(&mut bytes, &message(number)).await.unwrap();
        }
        assert_eq!(read_all(&bytes).await.unwrap(), [message(1), message(300), message(u64::MAX)]);
        // Wherever it is cut, what was whole is read, and a cut within a message is told.
        let lengths: Vec<usize> = [1, 300, u64::MAX].map(|number| 4 + message(number).encoded_len()).to_vec();
        let ends = [0, lengths[0], lengths[0] + lengths[1]];
        for cut in 0..bytes.len() {
            assert_eq!(read_all(&bytes[..cut]).await.is_ok(), ends.contains(&cut), "{cut}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_message_is_refused() {
        let code = |read: io::Result<_>| read.unwrap_err().kind();
        assert_eq!(code(read_all(&[0xff; 64]).await), io::ErrorKind::InvalidData);
        assert_eq!(code(read_all(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).await), io::ErrorKind::InvalidData);
        let most = u32::try_from(FRAME_MAX).unwrap();
        assert_eq!(code(read_all(&(most + 1).to_be_bytes()).await), io::ErrorKind::InvalidData);
        assert_eq!(code(read_all(&most.to_be_bytes()).await), io::ErrorKind::UnexpectedEof, "as long as may be");
        let long = AuditHead { number: 1, hash: vec![0; FRAME_MAX] };
        assert_eq!(write(&mut Vec::new(), &long).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
