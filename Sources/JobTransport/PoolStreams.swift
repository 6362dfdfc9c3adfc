import JobModel
import NATSClient
import WireJSON

/// How large the streams of a pool may grow. The sum of the bytes should stay below the server's disk.
package struct StreamLimits: Sendable, Equatable {
    /// Submissions that ORG_WQ holds at most; stands above MAX_QUEUE, so that a full queue is told before it refuses.
    package var submissions: Int
    package var workQueueBytes: Int
    package var runBytes: Int
    package var jobsBytes: Int
    package var eventsBytes: Int
    package var logsBytes: Int
    package var controlBytes: Int
    package var eventsAge: Duration
    package var logsAge: Duration
    /// Pieces of output that are kept of each job.
    package var logChunksPerJob: Int
    /// How long the server tells a repeated submission by its message id alone.
    package var duplicateWindow: Duration
    /// Copies of each stream in a cluster of servers.
    package var replicas: Int

    /// One server, about 10 GB in all.
    package static let standard = StreamLimits(
        submissions: 1_200_000,
        workQueueBytes: 1 << 30,
        runBytes: 512 << 20,
        jobsBytes: 4 << 30,
        eventsBytes: 2 << 30,
        logsBytes: 2 << 30,
        controlBytes: 64 << 20,
        eventsAge: .seconds(7 * 24 * 3600),
        logsAge: .seconds(7 * 24 * 3600),
        logChunksPerJob: 2000,
        duplicateWindow: .seconds(120),
        replicas: 1
    )
}

/// Why the streams of a pool are not as they must be.
package enum PoolStreamsError: Error, CustomStringConvertible {
    /// Something stands in the way that only a person can move.
    case layout(String)
    /// The server did not answer, or refused.
    case server(stream: String, JetStreamError)

    package var description: String {
        switch self {
        case .layout(let text): text
        case .server(let stream, let error): "stream \(stream): \(error)"
        }
    }

    /// Trying again can help: the server did not answer, or its cluster is not whole.
    package var isTransient: Bool {
        switch self {
        case .server(_, .unknown): true
        case .server(_, .refused(let error)): error.isUnavailable
        case .server, .layout: false
        }
    }
}

/// The six streams of a pool: made when they are missing, checked when they are there, never changed.
package struct PoolStreams: Sendable {
    package let names: PoolNames
    package let limits: StreamLimits

    package init(names: PoolNames, limits: StreamLimits) {
        self.names = names
        self.limits = limits
    }

    /// What a stream must be for the promises to hold, and what it is made with beyond that.
    struct Definition {
        let name: String
        let subjects: [String]
        /// Settings that an existing stream must have too.
        let essential: JSONObject
        /// Settings that an operator may have changed.
        let adjustable: JSONObject

        var config: JSON {
            var config = essential
            for field in adjustable { config[field.key] = field.value }
            config["name"] = .string(name)
            config["subjects"] = .array(subjects.map { .string($0) })
            return .object(config)
        }
    }

    /// Makes the control stream, which everything else needs, even to find out who leads.
    package func ensureControl(_ jetStream: JetStream) async throws(PoolStreamsError) {
        try await checkServer(jetStream)
        try await ensure(controlDefinition, jetStream)
    }

    /// Makes or checks all streams.
    package func ensureAll(_ jetStream: JetStream) async throws(PoolStreamsError) {
        try await checkServer(jetStream)
        for definition in definitions { try await ensure(definition, jetStream) }
    }

    /// Makes the stream of records alone, for those who bring some from elsewhere.
    package func ensureRecords(_ jetStream: JetStream) async throws(PoolStreamsError) {
        for definition in definitions where definition.name == names.jobsStream {
            try await ensure(definition, jetStream)
        }
    }

    // MARK: older layouts

    /// What a stream of the pool takes; nothing for a stream that is none of the pool's.
    package func subjects(of stream: String) -> [String] {
        definitions.first { $0.name == stream }?.subjects ?? []
    }

    /// The stream has the name of one of the pool's, and is not as that must be.
    package func differs(_ info: StreamInfo) -> Bool { problem(in: info) != nil }

    /// Why a stream cannot be given this layout where it stands, for a person; nil when it can.
    package func cannotBecome(_ info: StreamInfo) -> String? {
        guard let definition = definitions.first(where: { $0.name == info.name }) else { return nil }
        // A server changes neither of these.
        let fixed = ["retention", "storage"].filter { info.config[$0] != definition.essential[$0] }
        guard !fixed.isEmpty else { return nil }
        let texts = fixed.map {
            "\($0) \(info.config[$0]?.stringValue ?? "?"), not \(definition.essential[$0]?.stringValue ?? "?")"
        }
        return
            "stream \(info.name) has \(texts.joined(separator: " and ")), which no server changes; copy what you need and remove it"
    }

    /// The configuration of a stream with the subjects and the settings that it must have; the others stay.
    package func reshaped(_ info: StreamInfo) -> JSON {
        guard let definition = definitions.first(where: { $0.name == info.name }),
            case .object(var config) = info.config
        else { return info.config }
        for field in definition.essential { config[field.key] = field.value }
        config["subjects"] = .array(definition.subjects.map { .string($0) })
        return .object(config)
    }

    /// Why an existing stream cannot be the pool's stream of its name, for a person; nil when it is as it must be.
    package func problem(in info: StreamInfo) -> String? {
        guard let definition = definitions.first(where: { $0.name == info.name }) else { return nil }
        do throws(PoolStreamsError) {
            try check(info, definition)
            return nil
        } catch {
            return error.description
        }
    }

    /// Replicas of servers before 2.11 have no working compare-and-set: two writers can both be told that they won.
    ///
    /// Servers from 2.11 tell an API level in the account information; older ones do not know the field.
    private func checkServer(_ jetStream: JetStream) async throws(PoolStreamsError) {
        let account: JSON
        do {
            account = try await jetStream.accountInfo()
        } catch {
            throw .server(stream: names.controlStream, error)
        }
        guard limits.replicas > 1, account["api"]?["level"]?.intValue ?? 0 < 1 else { return }
        throw .layout(
            "STREAM_REPLICAS is \(limits.replicas), but this nats-server is older than 2.11: compare-and-set on replicas "
                + "works only from there; upgrade the servers, or set STREAM_REPLICAS=1"
        )
    }

    private func ensure(_ definition: Definition, _ jetStream: JetStream) async throws(PoolStreamsError) {
        do {
            let info = try await jetStream.streamInfo(definition.name)
            try check(info, definition)
        } catch let error as PoolStreamsError {
            throw error
        } catch JetStreamError.refused(let error) where error.isStreamNotFound {
            try await create(definition, jetStream)
        } catch let error as JetStreamError {
            throw .server(stream: definition.name, error)
        } catch {
            throw .layout("stream \(definition.name): \(error)")
        }
    }

    private func create(_ definition: Definition, _ jetStream: JetStream) async throws(PoolStreamsError) {
        do {
            _ = try await jetStream.createOrCheckStream(definition.config)
        } catch .refused(let error) where error.isSubjectsOverlap {
            throw .layout(await overlap(definition, jetStream))
        } catch .refused(let error) where error.errorCode == 10047 {
            throw .layout(
                "the server has no room for stream \(definition.name) (\(error)); give JetStream more storage, or set "
                    + "smaller STREAM_*_MAX_MB"
            )
        } catch {
            throw .server(stream: definition.name, error)
        }
    }

    /// Who owns the subjects that a new stream needs.
    private func overlap(_ definition: Definition, _ jetStream: JetStream) async -> String {
        var owners: [String] = []
        for subject in definition.subjects {
            do {
                for name in try await jetStream.streamNames(subject: subject) {
                    owners.append("\(name) holds \(subject)")
                }
            } catch {
                owners.append("who holds \(subject) could not be told: \(error)")
            }
        }
        return "stream \(definition.name) cannot be made, because another stream owns its subjects: "
            + owners.joined(separator: ", ") + ". " + Self.advice
    }

    private static let advice =
        "If it is of an older layout, `maestroctl streams migrate` moves it over and keeps every pending job. Else take "
        + "those subjects out of that stream, or give this pool names of its own by STREAM_PREFIX and SUBJECT_PREFIX"

    private func check(_ info: StreamInfo, _ definition: Definition) throws(PoolStreamsError) {
        let subjects = info.subjects
        let missing = definition.subjects.filter { !subjects.contains($0) }
        let foreign = subjects.filter { !definition.subjects.contains($0) }
        guard missing.isEmpty, foreign.isEmpty else {
            var problems: [String] = []
            if !foreign.isEmpty { problems.append("it also holds \(foreign.joined(separator: ", "))") }
            if !missing.isEmpty { problems.append("it lacks \(missing.joined(separator: ", "))") }
            throw .layout(
                "stream \(definition.name) is not of this layout: " + problems.joined(separator: "; ") + ". "
                    + Self.advice
            )
        }
        for field in definition.essential {
            let actual = info.config[field.key]
            let isZero = (actual?.intValue ?? 0) == 0 && field.value.intValue == 0
            guard actual == field.value || isZero else {
                let text = actual.map { String(decoding: $0.encoded(), as: UTF8.self) } ?? "nothing"
                throw .layout(
                    "stream \(definition.name) has \(field.key) \(text); it must be "
                        + "\(String(decoding: field.value.encoded(), as: UTF8.self)) for jobs to be safe"
                )
            }
        }
    }

    // MARK: the streams

    private var controlDefinition: Definition {
        Definition(
            name: names.controlStream,
            subjects: [names.subjectPrefix + "gpu.ctl.*"],
            essential: records,
            adjustable: ["max_bytes": .int(limits.controlBytes), "num_replicas": .int(limits.replicas)]
        )
    }

    /// One record per subject, for ever: what compare-and-set works on.
    private var records: JSONObject {
        ["retention": "limits", "storage": "file", "discard": "new", "max_msgs_per_subject": 1, "max_age": 0]
    }

    private var workQueue: JSONObject {
        ["retention": "workqueue", "storage": "file", "discard": "new", "max_age": 0]
    }

    private var history: JSONObject {
        ["retention": "limits", "storage": "file", "discard": "old"]
    }

    var definitions: [Definition] {
        let replicas = JSON.int(limits.replicas)
        let prefix = names.subjectPrefix
        return [
            controlDefinition,
            Definition(
                name: names.workQueueStream,
                subjects: [names.enqueueSubject],
                essential: workQueue,
                adjustable: [
                    "max_bytes": .int(limits.workQueueBytes), "max_msgs": .int(limits.submissions),
                    "duplicate_window": .int(limits.duplicateWindow.wholeNanoseconds), "num_replicas": replicas,
                ]
            ),
            Definition(
                name: names.runStream,
                subjects: [names.runPrefix + ".*"],
                essential: workQueue,
                adjustable: ["max_bytes": .int(limits.runBytes), "num_replicas": replicas]
            ),
            Definition(
                name: names.jobsStream,
                subjects: [names.statePrefix + ".*"],
                essential: records,
                adjustable: ["max_bytes": .int(limits.jobsBytes), "num_replicas": replicas]
            ),
            Definition(
                name: names.eventsStream,
                subjects: [
                    prefix + "gpu.worker.*", names.done, names.error, names.resultPrefix + ".*", prefix + "maestro.*",
                ],
                essential: history,
                adjustable: [
                    "max_bytes": .int(limits.eventsBytes), "max_age": .int(limits.eventsAge.wholeNanoseconds),
                    "num_replicas": replicas,
                ]
            ),
            Definition(
                name: names.logsStream,
                subjects: [prefix + "gpu.task.log.*"],
                essential: history,
                adjustable: [
                    "max_bytes": .int(limits.logsBytes), "max_age": .int(limits.logsAge.wholeNanoseconds),
                    "max_msgs_per_subject": .int(limits.logChunksPerJob), "num_replicas": replicas,
                ]
            ),
        ]
    }
}
