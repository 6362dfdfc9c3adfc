import JobModel
import JobTransport
import NATSClient
import WireJSON

/// What has to be done to streams of an older layout, so that a maestro of this one takes them: one where ORG_WQ holds the
/// dispatched attempts too, and ORG_EVENTS the jobs' states.
struct StreamMigration: Sendable, Equatable {
    /// What was found on the server.
    struct Facts: Sendable {
        var workQueue: StreamInfo?
        var events: StreamInfo?
        var consumers: [ConsumerInfo] = []
        /// Messages of ORG_WQ by subject, but for the submissions.
        var dispatched: [String: UInt64] = [:]
        /// Subjects of jobs' states that ORG_EVENTS holds messages of.
        var states: [String] = []
        /// How old the oldest submission is, in seconds.
        var oldestSubmission: Double?
    }

    enum Step: Sendable, Equatable {
        /// Gives the stream these subjects, and the settings that jobs need to be safe.
        case reshape(stream: String, from: [String], to: [String])
        /// Moves the last state of each of so many jobs to ORG_JOBS, where it is a record.
        case carryRecords(Int)
        case removeConsumer(stream: String, name: String)
        /// Makes submissions of so many dispatched attempts.
        case resubmitRuns(UInt64)
        /// Removes the states of the older scheduler from ORG_EVENTS: they are records, or of no more use.
        case forgetStates
        /// Stores the submissions again, which are so old that a maestro would refuse them.
        case refreshSubmissions
    }

    var steps: [Step] = []
    /// What a person has to do before; nothing is changed while there is any.
    var obstacles: [String] = []

    /// Submissions older than this are stored again. ID_HORIZON_SEC is a day at least.
    static let freshness = 12 * 3600.0

    init(_ facts: Facts, names: PoolNames) {
        let layout = PoolStreams(names: names, limits: .standard)
        if let events = facts.events {
            reshape(events, layout)
            if !facts.states.isEmpty { steps.append(.carryRecords(facts.states.count)) }
        }
        if let workQueue = facts.workQueue { plan(workQueue, facts, layout, names) }
        if !facts.states.isEmpty { steps.append(.forgetStates) }
    }

    private mutating func plan(_ workQueue: StreamInfo, _ facts: Facts, _ layout: PoolStreams, _ names: PoolNames) {
        let foreign = facts.dispatched.filter { !$0.key.hasPrefix(names.runPrefix + ".") }
        for (subject, count) in foreign.sorted(by: { $0.key < $1.key }) {
            obstacles.append(
                "\(workQueue.name) holds \(count) messages of \(subject), which are neither submissions nor attempts; remove "
                    + "them (nats stream purge \(workQueue.name) --subject \(subject)) or the stream"
            )
        }
        let isOld = layout.differs(workQueue) || !facts.dispatched.isEmpty
        if isOld {
            for consumer in facts.consumers {
                if consumer.waiting > 0 || consumer.config["deliver_subject"] != nil {
                    obstacles.append(
                        "somebody takes messages by consumer \(consumer.name) of \(workQueue.name): stop the older "
                            + "scheduler and its workers first"
                    )
                }
                steps.append(.removeConsumer(stream: workQueue.name, name: consumer.name))
            }
        }
        let runs = facts.dispatched.values.reduce(0, +)
        if runs > 0 { steps.append(.resubmitRuns(runs)) }
        if isOld, (facts.oldestSubmission ?? 0) > Self.freshness { steps.append(.refreshSubmissions) }
        reshape(workQueue, layout)
    }

    private mutating func reshape(_ info: StreamInfo, _ layout: PoolStreams) {
        guard layout.differs(info) else { return }
        if let why = layout.cannotBecome(info) { obstacles.append(why) }
        steps.append(.reshape(stream: info.name, from: info.subjects, to: layout.subjects(of: info.name)))
    }
}

extension StreamMigration.Step: CustomStringConvertible {
    var description: String {
        switch self {
        case .reshape(let stream, let old, let new):
            let gone = old.filter { !new.contains($0) }
            return "\(stream): " + (gone.isEmpty ? "its settings" : "no longer \(gone.joined(separator: ", "))")
        case .carryRecords(let count): return "\(count) jobs' states become records in the stream of records"
        case .removeConsumer(let stream, let name): return "\(stream): consumer \(name) goes"
        case .resubmitRuns(let count): return "\(count) dispatched attempts go back to the queue"
        case .forgetStates: return "the older scheduler's states leave the stream of events"
        case .refreshSubmissions: return "old submissions are stored again, so that none is refused for its age"
        }
    }

    /// A stable word for programs.
    var code: String {
        switch self {
        case .reshape: "reshape"
        case .carryRecords: "carry_records"
        case .removeConsumer: "remove_consumer"
        case .resubmitRuns: "resubmit_runs"
        case .forgetStates: "forget_states"
        case .refreshSubmissions: "refresh_submissions"
        }
    }
}

/// What stands in a message of an older run subject.
enum DispatchedTask: Sendable, Equatable {
    /// A record of this format: its job is carried over as it is.
    case record(JobRecord)
    /// A task to be submitted again, with its id; nil for what is no task, and is refused by the maestro that reads it.
    case task(JobID?, [UInt8])

    /// - Parameter unpin: take the card out that the older scheduler wrote into the task.
    init(_ message: StoredMessage, names: PoolNames, unpin: Bool) {
        if let run = try? RunMessage(parsing: message.payload, enqueueSubject: names.enqueueSubject) {
            self = .record(run.record)
            return
        }
        guard case .object(var object)? = try? JSON(parsing: message.payload) else {
            self = .task(nil, message.payload)
            return
        }
        var isChanged = false
        if let inner = object["task"]?.objectValue {
            object = inner
            isChanged = true
        }
        if unpin, object["gpu"] != nil {
            object["gpu"] = nil
            isChanged = true
        }
        if object["task_id"] == nil {
            // The same at every try, and what a maestro would have called it.
            object["task_id"] = .string("task-\(message.timestamp)-\(message.sequence)")
            isChanged = true
        }
        let id = object["task_id"]?.stringValue.flatMap { JobID($0) }
        self = .task(id, isChanged ? JSON.object(object).encoded() : message.payload)
    }
}
