//! The line to a server: a thread holds the connection and does what it is told, and whoever waits for it waits no longer
//! than the time limit. The library itself would wait for ever for a server that takes a connection and says nothing.

use std::collections::HashMap;
use std::error::Error;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};

use super::address::{Server, in_words};
use crate::store::engine::{Cell, Row};
use crate::store::error::{EngineError, EngineFault};

/// A server that hangs costs a thread each time; with so many there is no use in another.
const MOST_HANGING: usize = 3;
/// The server ends a statement that takes too long by itself, and says so: this much later we hang up.
const GRACE: Duration = Duration::from_secs(1);
/// How many statements are kept ready.
const STATEMENTS: usize = 256;

/// What the thread is told to do.
#[derive(Debug)]
pub enum Order {
    /// Statements without parameters.
    Batch(String),
    /// One statement; how many rows it touched.
    Run(String, Vec<Cell>),
    /// One question; its rows.
    Rows(String, Vec<Cell>),
}

/// What it says.
#[derive(Debug)]
pub enum Reply {
    /// It touched so many rows.
    Done(u64),
    /// These rows.
    Rows(Vec<Row>),
}

type Answer = Result<Reply, EngineError>;

/// Our end of the line.
#[derive(Debug)]
pub struct Line {
    server: Server,
    ends: Option<Ends>,
    hanging: Vec<JoinHandle<()>>,
    hung_up: bool,
}

#[derive(Debug)]
struct Ends {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
}

impl Line {
    /// A line that is not open yet.
    pub fn new(server: Server) -> Self {
        Self { server, ends: None, hanging: Vec::new(), hung_up: false }
    }

    /// Whether there is a connection, as far as anybody knows.
    pub fn is_open(&self) -> bool {
        self.ends.is_some()
    }

    /// Whether the last connection was given up because the server did not answer.
    pub fn hangs(&self) -> bool {
        self.hung_up
    }

    /// Lets the connection go.
    pub fn close(&mut self) {
        self.ends = None;
    }

    /// Connects.
    #[expect(clippy::disallowed_methods, reason = "the library can wait for ever, and only a thread can be left behind")]
    pub fn open(&mut self) -> Result<(), EngineError> {
        self.hanging.retain(|thread| !thread.is_finished());
        if self.hanging.len() >= MOST_HANGING {
            return Err(away(format!("the server does not answer on {} connections", self.hanging.len())));
        }
        let (orders, incoming) = mpsc::channel();
        let (outgoing, answers) = mpsc::channel();
        let server = self.server.clone();
        let hold = move || match connect(&server) {
            Ok(client) => {
                if outgoing.send(Ok(Reply::Done(0))).is_ok() {
                    serve(client, &incoming, &outgoing);
                }
            }
            Err(error) => {
                let _ = outgoing.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("postgres".to_owned()).spawn(hold).map_err(|error| away(error.to_string()))?;
        self.hung_up = false;
        self.ends = Some(Ends { orders, answers, thread });
        let connected = self.wait(self.server.connect_time + GRACE);
        if connected.is_err() {
            self.ends = None;
        }
        connected.map(|_| ())
    }

    /// Statements without parameters.
    pub fn batch(&mut self, sql: &str) -> Result<(), EngineError> {
        self.call(Order::Batch(sql.to_owned())).map(|_| ())
    }

    /// Has something done.
    pub fn call(&mut self, order: Order) -> Answer {
        let sent = self.ends.as_ref().is_some_and(|ends| ends.orders.send(order).is_ok());
        if !sent {
            self.ends = None;
            return Err(away("the connection is gone".to_owned()));
        }
        self.wait(self.server.statement_time + GRACE)
    }

    fn wait(&mut self, limit: Duration) -> Answer {
        let Some(ends) = self.ends.take() else { return Err(away("the connection is gone".to_owned())) };
        match ends.answers.recv_timeout(limit) {
            Ok(answer) => {
                self.ends = Some(ends);
                answer
            }
            Err(RecvTimeoutError::Timeout) => {
                self.hung_up = true;
                self.hanging.push(ends.thread);
                Err(away(format!("the server has not answered within {} s", limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(away("the connection is gone".to_owned())),
        }
    }
}

fn away(why: String) -> EngineError {
    EngineError::new(EngineFault::Away, why)
}

/// A connection.
pub(super) fn connect(server: &Server) -> Result<Client, EngineError> {
    let denied = |why| EngineError::new(EngineFault::Denied, why);
    let config = server.config().map_err(denied)?;
    let connector = server.check.connector().map_err(denied)?;
    config.connect(connector).map_err(|error| fault(&error))
}

fn serve(mut client: Client, orders: &Receiver<Order>, answers: &Sender<Answer>) {
    let mut ready = HashMap::new();
    for order in orders {
        let answer = obey(&mut client, &mut ready, order).map_err(|error| fault(&error));
        let lost = client.is_closed();
        let answer = answer.map_err(|error| if lost { away(error.why) } else { error });
        if answers.send(answer).is_err() || lost {
            return;
        }
    }
}

fn obey(client: &mut Client, ready: &mut HashMap<String, Statement>, order: Order) -> Result<Reply, postgres::Error> {
    match order {
        Order::Batch(sql) => client.batch_execute(&sql).map(|()| Reply::Done(0)),
        Order::Run(sql, values) => {
            let statement = prepared(client, ready, sql)?;
            client.execute(&statement, &parameters(&values)).map(Reply::Done)
        }
        Order::Rows(sql, values) => {
            let statement = prepared(client, ready, sql)?;
            let rows = client.query(&statement, &parameters(&values))?;
            Ok(Reply::Rows(rows.iter().map(|row| (0..row.len()).map(|column| cell(row, column)).collect()).collect()))
        }
    }
}

fn prepared(client: &mut Client, ready: &mut HashMap<String, Statement>, sql: String) -> Result<Statement, postgres::Error> {
    if let Some(statement) = ready.get(&sql) {
        return Ok(statement.clone());
    }
    if ready.len() >= STATEMENTS {
        ready.clear();
    }
    let statement = client.prepare(&sql)?;
    ready.insert(sql, statement.clone());
    Ok(statement)
}

fn parameters(values: &[Cell]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn cell(row: &postgres::Row, column: usize) -> Cell {
    let number = |number: Option<i64>| number.map_or(Cell::Null, Cell::Int);
    match row.columns()[column].type_() {
        kind if *kind == Type::INT8 => number(row.try_get(column).unwrap_or(None)),
        kind if *kind == Type::INT4 => number(row.try_get::<_, Option<i32>>(column).unwrap_or(None).map(i64::from)),
        _ => row.try_get::<_, Option<String>>(column).unwrap_or(None).map_or(Cell::Null, Cell::Text),
    }
}

impl ToSql for Cell {
    fn to_sql(&self, kind: &Type, out: &mut postgres::types::private::BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What kind of failure it is, by the codes of the server ("PostgreSQL Error Codes").
fn fault(error: &postgres::Error) -> EngineError {
    let kind = match error.code() {
        None => EngineFault::Away,
        Some(code) if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => EngineFault::Conflict,
        Some(code) if *code == SqlState::DISK_FULL => EngineFault::Full,
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => EngineFault::Denied,
        Some(code) if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) => EngineFault::Damaged,
        Some(code) => match code.code().get(..2) {
            // Who we are.
            Some("28") => EngineFault::Denied,
            // Connections; resources; somebody stops the server or the statement, or has a lock; a standby; no such database.
            Some("08" | "53" | "55" | "57" | "58" | "25" | "3D") => EngineFault::Away,
            Some(_) | None => EngineFault::Rejected,
        },
    };
    EngineError::new(kind, in_words(error))
}
