import JobModel
import WireJSON

/// What the messages of the simulated streams hold: values, as their readers would have them from the wire.
package enum Content: Sendable {
    case submission([UInt8])
    indirect case run(RunMessage)
    indirect case record(JobRecord)
    case lease(LeaderLease)
    case registration(WorkerRegistration)
    case control(CardControl)
    case place(UInt64)
    /// Of `gpu.task.done`, `gpu.task.err` and `gpu.task.result.*`.
    case event([UInt8])

    /// The mark of the write.
    var op: OperationID? {
        switch self {
        case .record(let record): record.op
        case .lease(let lease): lease.op
        case .registration(let registration): registration.op
        case .control(let control): control.op
        case .submission, .run, .place, .event: nil
        }
    }

    var record: JobRecord? { if case .record(let record) = self { record } else { nil } }
}

typealias Stored = StreamModel<Content>.Message

/// What is published for whoever listens, and kept by no stream.
enum Plain {
    /// A request of a worker that wants to know that it was heard: the leader answers there.
    case heartbeat(Heartbeat, replyTo: String?)
    case heartbeatAnswer(HeartbeatAnswer)
    case reading(CardReading)
    case down(WorkerNotice)
    /// `leading` on `maestro.state`.
    case leading
    case workerRequest(WorkerRequest, ReturnAddress<WorkerAnswer>)
    case request(PersonalRequest, ReturnAddress<JSON>)
}

/// What people ask the leader for.
enum PersonalRequest {
    case cancel(JobID)
    case why(JobID)
    case status
    case card(verb: String, GPUID, delay: Duration?)
}

/// Where to answer a request.
struct ReturnAddress<Answer> {
    let connection: Connection
    let epoch: Int
    let take: (Answer) -> Void
}
