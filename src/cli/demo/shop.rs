//! A small shop with a bit of everything, and customers who never stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::{Error, Session};

/// Every payment moves money between two accounts, so the sum never changes: a copy of two moments would show.
pub(super) const MONEY_IS_WHOLE: &str = "select sum(balance) = 1000000 from shop.accounts";
/// Orders and their lines are committed together.
pub(super) const ORDERS_ARE_WHOLE: &str = "select not exists (select from shop.orders o where not exists (select from shop.order_lines l where l.order_id = o.id))";

const SCHEMA: &str = include_str!("shop.sql");

const COUNT: &str = "select sum((pg_catalog.xpath('/row/c/text()', pg_catalog.query_to_xml(
        pg_catalog.format('select count(*) as c from %s', oid::regclass), false, true, '')))[1]::text::bigint)
    from pg_catalog.pg_class where relkind = 'r' and relnamespace = 'shop'::regnamespace";

/// A customer's hand is not faster, and a demo machine has other things to do.
const PAUSE: Duration = Duration::from_millis(5);

/// Makes the database and fills it. Returns how many rows it has.
pub(super) async fn build(maintenance: &ConnectionSettings, shop: &ConnectionSettings) -> Result<u64, Error> {
    let session = Session::connect(maintenance, "demo", None).await?;
    session
        .batch(
            "make the shop's database",
            "create database shop template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'",
        )
        .await?;
    session.close().await;
    let session = Session::connect(shop, "demo", None).await?;
    session.batch("furnish the shop", SCHEMA).await?;
    let counted = session.select_text("count the shop's rows", COUNT).await?;
    session.close().await;
    let rows = counted.first().and_then(|row| row.get(0)?.parse().ok());
    Ok(rows.unwrap_or_default())
}

/// Orders and payments, one after the other, until stopped.
pub(super) struct LiveWrites {
    count: Arc<AtomicU64>,
    stop: CancellationToken,
    /// Gives the longest time that one of them took.
    task: JoinHandle<Result<Duration, Error>>,
}

impl LiveWrites {
    pub(super) async fn start(shop: &ConnectionSettings) -> Result<Self, Error> {
        let session = Session::connect(shop, "demo customers", None).await?;
        let (count, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let task = tokio::spawn(order_and_pay(session, Arc::clone(&count), stop.clone()));
        Ok(Self { count, stop, task })
    }

    /// Transactions committed so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends after the transaction under way, and tells how many there were and how long the slowest took.
    pub(super) async fn stop(self) -> Result<(u64, Duration), Error> {
        self.stop.cancel();
        let slowest = match self.task.await {
            Ok(outcome) => outcome?,
            Err(error) => return Err(Error::unexpected("write to the shop", "demo", error.to_string())),
        };
        Ok((self.count.load(Ordering::Relaxed), slowest))
    }
}

async fn order_and_pay(
    session: Session,
    count: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Result<Duration, Error> {
    let mut slowest = Duration::ZERO;
    for number in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        let began = Instant::now();
        session.batch("order and pay", &one_purchase(number)).await?;
        slowest = slowest.max(began.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    session.close().await;
    Ok(slowest)
}

/// Several statements in one message are one transaction.
fn one_purchase(number: u64) -> String {
    let payer = 1 + number % 1000;
    // Never the same: the distance is 1 to 998, in a circle of 1000.
    let payee = 1 + (number + 1 + number % 998) % 1000;
    let customer = 1 + number * 7 % 10_000;
    format!(
        "with made as (
             insert into shop.orders (customer_id, status, ordered_at)
             values ({customer}, 'new', pg_catalog.now()) returning id)
         insert into shop.order_lines (order_id, line, product_id, quantity, price)
         select id, line, 1 + line * 3, line, 9.95 from made, pg_catalog.generate_series(1, 2) as line;
         update shop.accounts set balance = balance + case id when {payer} then -1 else 1 end
          where id in ({payer}, {payee})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_pays_himself() {
        for number in 0..20_000_u64 {
            let (payer, payee) = (1 + number % 1000, 1 + (number + 1 + number % 998) % 1000);
            assert_ne!(payer, payee, "{number}");
            assert!(one_purchase(number).contains(&format!("({payer}, {payee})")));
        }
    }
}
