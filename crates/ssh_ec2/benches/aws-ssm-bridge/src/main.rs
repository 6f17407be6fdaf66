//! `aws-ssm-bridge-pipe INSTANCE PORT [PAYLOAD]`: standard input and output, carried to a port of an instance
//! by the crate `aws-ssm-bridge`, with messages of PAYLOAD bytes.

use aws_ssm_bridge::documents::SshSession;
use aws_ssm_bridge::{EndpointPolicy, SessionBuilder};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let instance = arguments.next().ok_or("INSTANCE is missing")?;
    let port = arguments.next().ok_or("PORT is missing")?.parse()?;
    let payload = arguments.next().map_or(Ok(1024), |payload| payload.parse())?;
    let session = SessionBuilder::new(instance)
        .document(SshSession { port })
        .payload_chunk_size(payload)
        .endpoint_policy(EndpointPolicy::AllowAny)
        .start()
        .await?;
    let mut output = session.output();
    session.wait_ready().await?;
    let up = async {
        let mut input = tokio::io::stdin();
        let mut piece = vec![0; 64 * 1024];
        loop {
            match input.read(&mut piece).await? {
                0 => return Ok::<_, Box<dyn std::error::Error>>(()),
                length => session.send(piece[..length].to_vec()).await?,
            }
        }
    };
    let down = async {
        let mut to = tokio::io::stdout();
        while let Some(bytes) = output.next().await {
            to.write_all(&bytes).await?;
            to.flush().await?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    tokio::try_join!(up, down)?;
    Ok(())
}
