import JobModel

/// An event for ORG_EVENTS.
package enum OutgoingEvent: Sendable, Equatable {
    /// On `gpu.task.done`.
    case done([UInt8], messageID: String)
    /// On `gpu.task.err`.
    case error([UInt8], messageID: String)
    /// On `gpu.task.result.<task_id>`, stored only if there is none yet.
    case result(JobID, [UInt8])
}

/// What a worker decides to do. The shell starts each action at once; its outcome comes back as an event.
package enum WorkerAction: Sendable, Equatable {
    /// Everything of earlier lives is closed: say so to the pool.
    case announceReady
    /// Ask for that many messages more.
    case pull(Int)
    case ack(MessageToken)
    /// Give the message back, to be delivered again after the delay.
    case nak(MessageToken, delay: Duration)
    case inProgress([MessageToken])
    /// Read the record, and look whether the task may run here -> `prepared`.
    case prepare(RunMessage)
    /// -> `recordRead`
    case readRecord(JobID, AttemptID)
    /// Compare-and-set -> `writeEnded`
    case write(AttemptID, JobRecord, expected: UInt64)
    /// Journal and start the process of a claimed record -> `started` or `startFailed`, then `ended`.
    case start(AttemptID, JobRecord)
    /// Have the attempt's watchdog end it at that time, with so long from SIGTERM to SIGKILL, whatever becomes of this
    /// process. Comes before `start`, and again with each later time.
    case fence(AttemptID, until: Timestamp, grace: Duration)
    /// SIGTERM to its process group.
    case terminate(AttemptID)
    /// SIGKILL to everything of it.
    case kill(AttemptID)
    /// Look at the card -> `cardHeld`, perhaps `cardFailed`, and then `examined`
    case examine(AttemptID)
    /// Write the report to disk, wait for the output to be sent -> `reported`
    case report(AttemptReport)
    /// Store the events, one after the other -> `told`
    case tell(AttemptID, [OutgoingEvent])
    /// Store an event about a message that belongs to no attempt, then ack that message.
    case refuse(ErrorEvent, messageID: String, MessageToken)
    /// The attempt needs nothing more: its journal entry is complete, its directory may be pruned.
    case close(AttemptID, JobID)
    case reply(RequestToken, WorkerAnswer)
    /// Try whether the card works -> `probeEnded`
    case probe
    /// Tell at once what the next heartbeat would.
    case heartbeat
    /// Wake the core at this time, in place of any earlier arming; nil: not at all.
    case armTimer(Timestamp?)
    /// Something that a person should know.
    case notice(String)
    /// Told to stop, and nothing is left to do.
    case finish
}

/// What bounds a worker's decisions.
package struct WorkerPolicy: Sendable, Equatable {
    /// Attempts that run at once.
    package var slots: Int
    /// How long the server waits for an ack before it delivers a message again.
    package var ackWait: Duration
    /// How long a process may take to end after SIGTERM before SIGKILL.
    package var grace: Duration
    /// How long running attempts may go on after the worker was told to stop.
    package var drain: Duration
    /// The pause before a refused write is tried again.
    package var pause: Duration
    /// How often the records of what runs are looked at.
    package var checkInterval: Duration
    /// How old the answer to a claim may be by which a process is started. Well under the time after which a worker that is
    /// not heard of is called lost: what was claimed within it belongs to this worker still.
    package var claimPatience: Duration
    /// How long an attempt may run whose record sets no limit.
    package var defaultTimeout: Duration
    /// Where jobs are submitted, for messages to those who sent one elsewhere.
    package var enqueueSubject: String

    package init(
        slots: Int = 1,
        ackWait: Duration = .seconds(30),
        grace: Duration = .seconds(5),
        drain: Duration = .seconds(30),
        pause: Duration = .seconds(1),
        checkInterval: Duration = .seconds(15),
        claimPatience: Duration = .seconds(5),
        defaultTimeout: Duration = .seconds(3600),
        enqueueSubject: String = PoolNames().enqueueSubject
    ) {
        self.slots = slots
        self.ackWait = ackWait
        self.grace = grace
        self.drain = drain
        self.pause = pause
        self.checkInterval = checkInterval
        self.claimPatience = claimPatience
        self.defaultTimeout = defaultTimeout
        self.enqueueSubject = enqueueSubject
    }

    /// How many messages are held at once: a full set of slots, and as many again so that no slot waits for the bus.
    var window: Int { slots * 2 }
    /// Attempts that may wait for their reporting while others run.
    var maximumReporting: Int { slots + 64 }
}
