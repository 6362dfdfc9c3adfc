import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

/// The workers: who is registered, who is heard, whose clock and version differ.
enum WorkerExam {
    /// Records of ORG_CTL that cannot be read.
    struct Unreadable: Sendable, Equatable {
        let subject: String
        let sequence: UInt64
        let reason: String
        /// Written by a newer version: to be left alone.
        let isNewer: Bool
    }

    static func gather(_ client: PoolClient, _ facts: inout PoolFacts, now: Double) async throws -> [Unreadable] {
        let names = client.names
        var unreadable: [Unreadable] = []
        if facts.streams[names.controlStream] != nil {
            try await Replay.run(
                client,
                stream: names.controlStream,
                subject: names.subjectPrefix + "gpu.ctl.*",
                what: "the registrations"
            ) { message in
                do {
                    if message.subject.hasPrefix(names.registrationPrefix) {
                        let registration = try WorkerRegistration(parsing: message.payload)
                        facts.registrations[registration.gpu] = registration
                    } else if message.subject == names.leader {
                        _ = try LeaderLease(parsing: message.payload)
                    }
                } catch let error as MalformedMessage {
                    unreadable.append(Self.unreadable(message, error))
                }
            }
        }
        guard facts.streams[names.eventsStream] != nil else { return unreadable }
        let start = WallClock.text(seconds: facts.serverTime(now) - facts.lookback)
        try await Replay.run(
            client,
            stream: names.eventsStream,
            subject: names.heartbeat,
            policy: .byStartTime(start),
            what: "the heartbeats"
        ) { message in
            guard let heartbeat = parsed(message, Heartbeat.init) else { return }
            facts.heard[heartbeat.incarnation] = HeardWorker(heartbeat: heartbeat, timestamp: message.timestamp)
        }
        try await Replay.run(
            client,
            stream: names.eventsStream,
            subject: names.workerUp,
            policy: .all,
            what: "the workers' beginnings"
        ) { message in
            guard let json = parsed(message, { try JSON(parsing: $0) }), let gpu = json["gpu_id"].flatMap({ GPUID($0) })
            else { return }
            facts.workerVersions[gpu] = json["version"]?.stringValue
        }
        return unreadable
    }

    /// Nil for what is no such message: anybody may publish there.
    private static func parsed<Message>(_ message: StoredMessage, _ parse: ([UInt8]) throws -> Message) -> Message? {
        do {
            return try parse(message.payload)
        } catch {
            return nil
        }
    }

    private static func unreadable(_ message: StoredMessage, _ error: MalformedMessage) -> Unreadable {
        var isNewer = false
        if let version = parsed(message, { try JSON(parsing: $0)["v"] })??.intValue {
            isNewer = version > FormatVersion.current
        }
        return Unreadable(
            subject: message.subject,
            sequence: message.sequence,
            reason: error.description,
            isNewer: isNewer
        )
    }

    // MARK: judging

    static func judge(_ facts: PoolFacts, _ unreadable: [Unreadable], now: Double) -> [Finding] {
        var findings = unreadable.map(judge)
        for (gpu, registration) in facts.registrations.sorted(by: { $0.key < $1.key }) where !registration.isReleased {
            let place = "card \(gpu) on \(registration.host)"
            guard let worker = facts.heard[registration.incarnation] else {
                findings.append(silent(gpu, registration, "none in the last \(Printable.duration(facts.lookback))"))
                continue
            }
            let age = facts.age(worker.timestamp, now: now)
            if age > facts.silence {
                findings.append(silent(gpu, registration, "the last one \(Printable.duration(age)) ago"))
                continue
            }
            if abs(worker.clockOffset) > ServerExam.clockTolerance { findings.append(clock(place, worker.clockOffset)) }
            if let version = facts.workerVersions[gpu], version != ProgramVersion.text {
                findings.append(self.version(place, version))
            }
        }
        findings += confinement(facts)
        findings += strangers(facts, now: now)
        return findings
    }

    private static func judge(_ record: Unreadable) -> Finding {
        let name = record.subject.split(separator: ".").last.map(String.init) ?? record.subject
        guard !record.isNewer else {
            return Finding(
                .workers,
                .warning,
                "control_newer",
                "\(name) is of a newer version, and left alone",
                evidence: "\(record.subject) at sequence \(record.sequence): \(record.reason)",
                advice: "upgrade this maestroctl, and whatever else is older"
            )
        }
        return Finding(
            .workers,
            .error,
            "control_unreadable",
            name == "leader"
                ? "the leader's lease cannot be read: nobody can lead"
                : "\(name) cannot be read: no worker can register",
            evidence: "\(record.subject) at sequence \(record.sequence): \(record.reason)",
            advice: "remove it; whoever it belongs to writes it again. Find out who published there",
            repair: .removeControl(subject: record.subject, sequence: record.sequence)
        )
    }

    private static func silent(_ gpu: GPUID, _ registration: WorkerRegistration, _ heartbeats: String) -> Finding {
        Finding(
            .workers,
            .warning,
            "worker_silent",
            "the worker of card \(gpu) is registered and not heard",
            evidence: "on \(registration.host), process \(registration.processID); heartbeats: \(heartbeats)",
            advice: "on that host: systemctl status gpu-worker@\(gpu), or start it again; a card that is gone for good "
                + "needs nothing"
        )
    }

    private static func clock(_ place: String, _ offset: Double) -> Finding {
        Finding(
            .workers,
            .warning,
            "clock_differs",
            "the clock of \(place) differs from the server's by \(Printable.duration(abs(offset)))",
            evidence: "its heartbeats are \(offset > 0 ? "ahead of" : "behind") the time at which they are stored",
            advice: "let the host keep time (chrony, systemd-timesyncd), then restart the worker: times mislead people"
        )
    }

    private static func version(_ place: String, _ version: String) -> Finding {
        Finding(
            .workers,
            .note,
            "version_differs",
            "the worker of \(place) is version \(version), this program \(ProgramVersion.text)",
            evidence: "what it told when it began",
            advice: "mixed versions work together; finish the upgrade when it suits"
        )
    }

    /// How the jobs of each host are held, where the system could hold them better; one finding for a host and a lack.
    private static func confinement(_ facts: PoolFacts) -> [Finding] {
        var uncontained: [String: [GPUID]] = [:]
        var unlimited: [String: [GPUID]] = [:]
        for (gpu, registration) in facts.registrations.sorted(by: { $0.key < $1.key }) where !registration.isReleased {
            // A worker of an older version does not tell.
            guard let hasCgroups = registration.facts["job_cgroups"]?.boolValue else { continue }
            let limits = registration.facts["job_limits"]?.arrayValue?.compactMap(\.stringValue) ?? []
            if !hasCgroups {
                uncontained[registration.host, default: []].append(gpu)
            } else if !limits.contains("memory") || !limits.contains("pids") {
                unlimited[registration.host, default: []].append(gpu)
            }
        }
        func list(_ cards: [GPUID]) -> String { "cards " + cards.map(\.text).joined(separator: " ") }
        let findings = uncontained.sorted { $0.key < $1.key }.map { host, cards in
            Finding(
                .workers,
                .note,
                "jobs_uncontained",
                "jobs on \(host) have no cgroups of their own",
                evidence: "job_cgroups is false: \(list(cards))",
                advice: "run the workers as systemd units (gpu-worker@N, Delegate=yes), or set JOB_CGROUP; "
                    + "until then processes are told by session, descent, environment and pipes"
            )
        }
        return findings
            + unlimited.sorted { $0.key < $1.key }.map { host, cards in
                Finding(
                    .workers,
                    .note,
                    "jobs_unlimited",
                    "jobs on \(host) cannot be limited in memory and processes as a whole",
                    evidence: "job_limits lacks memory or pids: \(list(cards))",
                    advice: "give the unit these controllers (cgroup v2; see cgroup.controllers of its slice)"
                )
            }
    }

    /// Heartbeats of lives that no registration names: a second worker under one id.
    private static func strangers(_ facts: PoolFacts, now: Double) -> [Finding] {
        facts.heard.values.sorted { $0.heartbeat.gpu < $1.heartbeat.gpu }.compactMap { worker in
            let heartbeat = worker.heartbeat
            guard facts.isHeard(heartbeat.incarnation, now: now),
                let owner = facts.registrations[heartbeat.gpu], owner.incarnation != heartbeat.incarnation,
                // A worker that was just replaced is heard for a moment longer.
                let successor = facts.heard[owner.incarnation], successor.timestamp < worker.timestamp
            else { return nil }
            return Finding(
                .workers,
                .error,
                "worker_stranger",
                "a worker that does not own card \(heartbeat.gpu) speaks for it",
                evidence: "incarnation \(heartbeat.incarnation), registered is \(owner.incarnation) on \(owner.host)",
                advice: "two machines use one id: give one of them a NODE_NAME"
            )
        }
    }

    static func summary(_ facts: PoolFacts, now: Double) -> String {
        let active = facts.registrations.values.filter { !$0.isReleased }
        let heard = active.count { facts.isHeard($0.incarnation, now: now) }
        return "\(Printable.count(active.count, "worker")) registered, \(heard) heard"
    }
}
