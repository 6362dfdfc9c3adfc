import JobModel

/// The keys that name a pool's subjects and streams. Every process of a pool must agree on them.
package enum PoolKeys {
    package static let subjectPrefix = SettingKey<String>.text(
        "SUBJECT_PREFIX",
        form: "tokens between dots, such as pool2",
        help: "put in front of every subject, so that pools can share a server",
        check: { SubjectName.problem(in: $0.hasSuffix(".") ? String($0.dropLast()) : $0) }
    )
    package static let streamPrefix = SettingKey<String>.text(
        "STREAM_PREFIX",
        default: "ORG",
        form: "a token",
        help: "what the names of the streams begin with",
        check: { Token.problem(in: $0) }
    )
    package static let workQueueStream = stream("STREAM_WQ", "submissions")
    package static let runStream = stream("STREAM_RUN", "dispatched attempts")
    package static let jobsStream = stream("STREAM_JOBS", "the jobs' records")
    package static let controlStream = stream("STREAM_CTL", "leases and registrations")
    package static let eventsStream = stream("STREAM_EVENTS", "events")
    package static let logsStream = stream("STREAM_LOGS", "output")
    package static let enqueueConsumer = SettingKey<String>.text(
        "CONSUMER_ENQ",
        default: "MAESTRO_ENQ",
        form: "a token",
        help: "the durable consumer of submissions",
        check: { Token.problem(in: $0) }
    )
    package static let enqueueSubject = subject("ENQ_SUBJECT", "where jobs are submitted (gpu.task.enqueue)")
    package static let runPrefix = subject("RUN_SUBJECT_PREFIX", "what a card's runs stand below (gpu.task.run)")
    package static let statePrefix = subject("STATE_PREFIX", "what the records stand below (gpu.task.state)")
    package static let resultPrefix = subject("RESULT_PREFIX", "what the results stand below (gpu.task.result)")

    /// A key of maestro's, read too by whoever submits again what was lost; not in ``all``.
    package static let idHorizon = SettingKey<Double>.seconds(
        "ID_HORIZON_SEC",
        default: 604_800,
        in: 86_400...31_622_400,
        help: "submissions older than this are refused"
    )

    package static let all: [SettingDeclaration] = [
        subjectPrefix.declaration, streamPrefix.declaration, workQueueStream.declaration, runStream.declaration,
        jobsStream.declaration, controlStream.declaration, eventsStream.declaration, logsStream.declaration,
        enqueueConsumer.declaration, enqueueSubject.declaration, runPrefix.declaration, statePrefix.declaration,
        resultPrefix.declaration,
    ]

    private static func stream(_ name: String, _ what: String) -> SettingKey<String?> {
        let standard = "<STREAM_PREFIX>\(name.dropFirst("STREAM".count))"
        return .optionalText(
            name,
            form: "a token",
            help: "the stream of \(what); else \(standard)",
            check: { Token.problem(in: $0) }
        )
    }

    private static func subject(_ name: String, _ what: String) -> SettingKey<String?> {
        .optionalText(name, form: "a subject", help: what, check: { SubjectName.problem(in: $0) })
    }
}

/// A subject without wildcards: tokens between dots.
package enum SubjectName {
    /// Why a text is not such a subject, for a person; nil if it is one.
    package static func problem(in text: String) -> String? {
        guard text.utf8.count <= 200 else { return "is longer than 200 bytes" }
        for token in text.split(separator: ".", omittingEmptySubsequences: false) {
            if let problem = Token.problem(in: String(token)) {
                return "is not a subject without wildcards: a token between its dots \(problem)"
            }
        }
        return nil
    }
}

extension Settings {
    /// The names of the pool.
    /// - Throws: ``SettingsError`` when two streams would have one name, or one message would belong to two of them.
    package func poolNames() throws(SettingsError) -> PoolNames {
        let prefix = self[PoolKeys.subjectPrefix]
        var names = PoolNames(
            subjectPrefix: prefix.isEmpty || prefix.hasSuffix(".") ? prefix : prefix + ".",
            streamPrefix: self[PoolKeys.streamPrefix],
            enqueueConsumer: self[PoolKeys.enqueueConsumer]
        )
        for (key, path) in Self.optionalNames { if let text = self[key] { names[keyPath: path] = text } }
        try checkStreams(names)
        try checkSubjects(names)
        return names
    }

    private static var optionalNames: [(SettingKey<String?>, WritableKeyPath<PoolNames, String>)] {
        streamNames + [
            (PoolKeys.enqueueSubject, \.enqueueSubject), (PoolKeys.runPrefix, \.runPrefix),
            (PoolKeys.statePrefix, \.statePrefix), (PoolKeys.resultPrefix, \.resultPrefix),
        ]
    }

    private static var streamNames: [(SettingKey<String?>, WritableKeyPath<PoolNames, String>)] {
        [
            (PoolKeys.workQueueStream, \.workQueueStream), (PoolKeys.runStream, \.runStream),
            (PoolKeys.jobsStream, \.jobsStream), (PoolKeys.controlStream, \.controlStream),
            (PoolKeys.eventsStream, \.eventsStream), (PoolKeys.logsStream, \.logsStream),
        ]
    }

    private func checkStreams(_ names: PoolNames) throws(SettingsError) {
        var owners: [String: String] = [:]
        for (key, path) in Self.streamNames {
            let name = names[keyPath: path]
            if let other = owners.updateValue(key.name, forKey: name) {
                throw error(key, "the stream \(name) is \(other)'s already; each needs a name of its own")
            }
        }
    }

    /// Subjects of different streams may not overlap: a prefix may not stand below, on or above another one.
    private func checkSubjects(_ names: PoolNames) throws(SettingsError) {
        // What is not a key of its own belongs to nobody, so an overlap with it is blamed on the other side.
        let fixed: [(SettingKey<String?>?, String)] = [
            (nil, names.subjectPrefix + "gpu.ctl"), (nil, names.subjectPrefix + "gpu.worker"), (nil, names.done),
            (nil, names.error), (nil, names.subjectPrefix + "gpu.task.log"), (nil, names.subjectPrefix + "maestro"),
        ]
        let configured: [(SettingKey<String?>?, String)] = [
            (PoolKeys.enqueueSubject, names.enqueueSubject), (PoolKeys.runPrefix, names.runPrefix),
            (PoolKeys.statePrefix, names.statePrefix), (PoolKeys.resultPrefix, names.resultPrefix),
        ]
        let all = fixed + configured
        for (index, entry) in all.enumerated() {
            for other in all[..<index] where overlap(entry.1, other.1) {
                let blamed = [entry.0, other.0].compactMap { $0 }.max { isSet($1) && !isSet($0) }
                guard let blamed else { continue }
                throw error(blamed, "the subjects \(entry.1) and \(other.1) overlap; none may begin with another")
            }
        }
    }

    private func isSet(_ key: SettingKey<String?>) -> Bool { self[key] != nil }

    private func overlap(_ a: String, _ b: String) -> Bool {
        (a + ".").hasPrefix(b + ".") || (b + ".").hasPrefix(a + ".")
    }
}
