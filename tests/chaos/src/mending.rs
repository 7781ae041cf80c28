//! What a person does after a database was put back to an older state: ends the sagas that have no way forward, with the commands that
//! `docs/operations.md` names.

use anyhow::{Result, ensure};
use berth::operator::Operator;
use database::Statements as _;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{DOCUMENTS, World};

/// Gives up every saga that has none; what is invoiced is credited first, and then there is one more to be given up.
///
/// # Errors
/// Nobody answers, or one is refused that may not be.
pub async fn mend(world: &World) -> Result<()> {
    let operator = world.operator()?;
    let sagas = operator.get(DOCUMENTS, "sagas?limit=1000").await?;
    for saga in sagas.as_array().into_iter().flatten() {
        let member = |name| saga.get(name).and_then(Value::as_str).unwrap_or_default();
        if matches!(member("state"), "unfulfilled" | "unreturned") {
            let id = member("id").parse()?;
            credit_in_full(world, id).await?;
            abandon(&operator, id).await?;
        }
    }
    Ok(())
}

async fn abandon(operator: &Operator, saga: Uuid) -> Result<()> {
    let reason = json!({ "reason": "a database was put back to an older state" });
    operator.post(DOCUMENTS, &format!("sagas/{saga}/abandon"), Some(&reason)).await?;
    Ok(())
}

/// Issues a credit note over all that is left of an order's invoice, if it has one.
async fn credit_in_full(world: &World, order: Uuid) -> Result<()> {
    let sql = "SELECT document_id, item_id, quantity - credited FROM document_lines
        JOIN documents ON document_id = id WHERE kind = 'invoice' AND based_on = $1 AND credited < quantity";
    let rows = world.database(DOCUMENTS)?.get().await?.all(sql, &[&order]).await?;
    let Some(invoice) = rows.first().map(|row| row.get::<_, Uuid>(0)) else { return Ok(()) };
    let line = |row: &database::Row| json!({ "item_id": row.get::<_, Uuid>(1), "quantity": row.get::<_, i64>(2) });
    let body = json!({ "lines": rows.iter().map(line).collect::<Vec<_>>() });
    let (path, key) = (format!("/documents/{invoice}/credit-notes"), format!("mending-{invoice}"));
    let answer = world.users.caller("carol").send(Method::POST, &path, &[("idempotency-key", &key)], &body).await?;
    ensure!(answer.status.is_success(), "{invoice} cannot be credited: {} {}", answer.status, answer.body);
    Ok(())
}
