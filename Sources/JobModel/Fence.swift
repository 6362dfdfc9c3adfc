/// What happens to a running attempt whose worker is cut off from the pool.
package enum PartitionPolicy: String, Sendable, Hashable, CaseIterable {
    /// The attempt runs on. If the job was given away meanwhile, the copy that comes back is killed and its result refused.
    case `continue`
    /// The worker ends the attempt before anybody else may start it.
    case fence
}

/// The times of a fenced attempt: how long its worker may go unanswered before it ends it, and how long the leader waits
/// before it gives the job to another.
///
/// All of them follow from one duration, which the record fixes at admission, so that a worker and every later leader count
/// by the same whatever they are configured to. The worker counts from the moment it *sent* the last heartbeat that a leader
/// answered, the leader from the moment it *received* one: the leader's time is never the earlier. `docs/RELIABILITY.md` has
/// the whole argument.
package struct Fence: Sendable, Equatable {
    /// From the sending of the last answered heartbeat until nothing of the attempt may run any more.
    package let limit: Duration

    package init(_ limit: Duration) { self.limit = limit }

    /// From SIGTERM to SIGKILL: the worker's own grace, as far as there is time for it.
    package func grace(atMost grace: Duration) -> Duration { min(grace, limit / 5) }

    /// What the processes may take to be gone after SIGKILL.
    package var killTime: Duration { limit / 10 }

    /// How long after the sending of the last answered heartbeat the attempt is told to end.
    package func window(grace: Duration) -> Duration { limit - self.grace(atMost: grace) - killTime }

    /// How often a worker sends heartbeats while it runs a fenced attempt: a leader that was replaced, or some heartbeats
    /// that got lost, are to end no job.
    package func interval(grace: Duration) -> Duration { max(window(grace: grace) / 8, .milliseconds(10)) }

    /// How long the leader waits after the last sign of the worker: the limit, a part in a thousand for clocks that run at
    /// different rates, and a second for a watchdog that gets the processor late.
    package var patience: Duration { limit + limit / 1000 + .seconds(1) }
}
