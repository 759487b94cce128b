//! What can be typed behind `enqueue`, `work` and `queue`.

use clap::{Args, Subcommand, ValueEnum};

/// Add a job to a queue; prints its id
#[derive(Debug, Args)]
pub struct EnqueueArgs {
    /// The queue
    #[arg(short = 'Q', long, value_name = "QUEUE", default_value = "default")]
    pub queue: String,
    /// Due so much later
    #[arg(long = "in", value_name = "D", conflicts_with = "at")]
    pub after: Option<String>,
    /// Due at this time: RFC 3339, HH:MM, or +D
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// The higher the sooner (with priority_order = asc the lower)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i64,
    /// Again so much after each planned time
    #[arg(long, value_name = "D")]
    pub repeat: Option<String>,
    /// No repetition after this time
    #[arg(long, value_name = "TIME", requires = "repeat")]
    pub repeat_until: Option<String>,
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Who wants it
    #[arg(long, value_name = "TEXT")]
    pub creator: Option<String>,
    /// What it is known by among its equals [default with --existing: its task and arguments]
    #[arg(long, value_name = "K")]
    pub key: Option<String>,
    /// When an equal job waits or runs
    #[arg(long, value_name = "WHAT", value_enum)]
    pub existing: Option<ExistingArg>,
    /// Attempts in all, 0 = no limit [default: max_attempts of the queue]
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// Read jobs from standard input, a JSON object on each line, and add all or none
    #[arg(long, conflicts_with_all = ["task", "after", "at", "repeat", "name", "key", "existing", "max_attempts"])]
    pub stdin: bool,
    /// The task, and its arguments
    #[arg(value_name = "TASK", required_unless_present = "stdin", trailing_var_arg = true, allow_hyphen_values = true)]
    pub task: Vec<String>,
}

/// `--existing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExistingArg {
    /// It stands for the new one
    Keep,
    /// It gets the time and priority of the new one
    Reschedule,
    /// It is cancelled, and the new one added
    Replace,
    /// The new one is added beside it
    Add,
}

/// Work queues until told to stop
#[derive(Debug, Args)]
pub struct WorkArgs {
    /// Only this queue (repeatable)
    #[arg(short = 'Q', long, value_name = "QUEUE")]
    pub queue: Vec<String>,
    /// Jobs side by side [default: jobs of each queue]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// End when no job is ready or running
    #[arg(long)]
    pub drain: bool,
    /// With --drain: exit with 1 if an attempt failed
    #[arg(long, requires = "drain")]
    pub fail: bool,
    /// Take no job after this time; 0 = no limit
    #[arg(long, value_name = "D")]
    pub duration: Option<String>,
    /// How often to look for jobs that nobody told of [default: poll of the queues]
    #[arg(long, value_name = "D")]
    pub sleep: Option<String>,
    /// How long running jobs may go on when told to stop
    #[arg(long, value_name = "D", default_value = "10")]
    pub grace: String,
}

/// Look after the jobs of queues
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum QueueCommand {
    /// Show jobs, the newest first
    List {
        /// Only those of this queue
        #[arg(short = 'Q', long, value_name = "QUEUE")]
        queue: Option<String>,
        /// Only those of this state
        #[arg(long, value_name = "STATE", value_enum)]
        state: Option<StateArg>,
        /// Not more than N
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 20)]
        count: u32,
    },
    /// Show one job
    Show {
        /// Its id
        id: i64,
    },
    /// Run a job that waits, here and now
    Run {
        /// Its id
        id: i64,
    },
    /// Do without jobs: those that wait are cancelled, those that run are ended
    Cancel {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<i64>,
    },
    /// Let jobs that have ended begin anew
    Retry {
        /// Their ids
        #[arg(required_unless_present = "failed")]
        ids: Vec<i64>,
        /// All that failed for good, of all queues or of the one that is named
        #[arg(long, conflicts_with = "ids")]
        failed: bool,
        /// With --failed: only those of this queue
        #[arg(short = 'Q', long, value_name = "QUEUE", requires = "failed")]
        queue: Option<String>,
    },
    /// Forget jobs that are over keep_done and keep_failed
    Prune,
    /// Show how many jobs each queue has
    Stats,
}

/// The states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Waits for its time
    Scheduled,
    /// Waits for a worker
    Ready,
    /// A worker has it
    Running,
    /// Ended well
    Done,
    /// Not tried again
    Failed,
    /// Not wanted any more
    Cancelled,
}
