import Dispatch
import JobModel
import JobTransport
import Logging
import NATSClient
import ServiceSupport
import WireJSON

/// What every part of a running gpu-worker needs.
struct WorkerContext: Sendable {
    let settings: WorkerSettings
    let connection: NATSConnection
    let jetStream: JetStream
    let records: RecordStore
    let clock: MonotonicClock
    let incarnation: Incarnation
    let bootID: String
    let device: any WorkerDevice
    let jobs: JobConfinement
    /// Whose tasks are run; nil: everybody's.
    let trust: SubmitterTrust?
    let logger: Logger

    var names: PoolNames { settings.names }
    var gpu: GPUID { settings.gpu }

    /// The fixed facts of this worker and its device, for `gpu.worker.up` and the registration.
    var facts: JSONObject {
        var facts: JSONObject = [
            "host": .string(HostInfo.name), "boot_id": .string(bootID), "pid": .int(HostInfo.processID),
            "version": .string(ProgramVersion.text), "slots": .int(settings.settings[WorkerSettings.Keys.slots]),
            "cache_dir": .string(settings.cacheDirectory),
        ]
        if let node = settings.settings[WorkerSettings.Keys.node] { facts["node"] = .string(node) }
        for field in jobs.facts { facts[field.key] = field.value }
        for field in device.facts { facts[field.key] = field.value }
        return facts
    }

    /// Tells something on a subject of events; what cannot be sent now is dropped and logged, since the records tell
    /// the truth without it.
    func tell(_ name: String, _ fields: JSONObject) {
        var body: JSONObject = ["gpu_id": gpu.json, "incarnation": .string(incarnation.text)]
        for field in fields { body[field.key] = field.value }
        body["ts"] = .double(clock.now().seconds)
        publish(JSON.object(body).encoded(), on: names.workerEvent(name))
    }

    func publish(_ payload: [UInt8], on subject: String, replyTo reply: String? = nil) {
        do throws(NATSError) {
            try connection.publish(payload, to: subject, replySubject: reply)
        } catch {
            logger.debug("an event was not sent", metadata: ["subject": "\(subject)", "error": "\(error)"])
        }
    }

    /// Something that a person should know: in this log, and on `gpu.worker.log` for those who watch the pool.
    func notice(_ text: String, level: Logger.Level = .warning) {
        logger.log(level: level, "\(text)")
        tell("log", ["level": .string(level.rawValue), "message": .string(text)])
    }
}

/// Where calls that block are made: on threads of their own, never on the cooperative pool.
struct BlockingWork: Sendable {
    private let queue: DispatchQueue

    init(label: String) { queue = DispatchQueue(label: label, attributes: .concurrent) }

    func run<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
        await withCheckedContinuation { continuation in
            queue.async { continuation.resume(returning: body()) }
        }
    }
}
