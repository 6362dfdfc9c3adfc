/// The names of one pool's subjects, streams and consumers. Several pools (and tests) can share a server.
package struct PoolNames: Sendable, Equatable {
    /// Put in front of every subject; empty or ending in a dot.
    package var subjectPrefix: String
    package var enqueueSubject: String
    package var runPrefix: String
    package var statePrefix: String
    package var resultPrefix: String

    package var workQueueStream: String
    package var runStream: String
    package var jobsStream: String
    package var controlStream: String
    package var eventsStream: String
    package var logsStream: String
    package var enqueueConsumer: String

    /// - Parameters:
    ///   - subjectPrefix: empty, or tokens that each end in a dot, such as "pool2.".
    ///   - streamPrefix: what the streams' names begin with; `ORG` gives `ORG_WQ`.
    package init(subjectPrefix: String = "", streamPrefix: String = "ORG", enqueueConsumer: String = "MAESTRO_ENQ") {
        self.subjectPrefix = subjectPrefix
        enqueueSubject = subjectPrefix + "gpu.task.enqueue"
        runPrefix = subjectPrefix + "gpu.task.run"
        statePrefix = subjectPrefix + "gpu.task.state"
        resultPrefix = subjectPrefix + "gpu.task.result"
        workQueueStream = streamPrefix + "_WQ"
        runStream = streamPrefix + "_RUN"
        jobsStream = streamPrefix + "_JOBS"
        controlStream = streamPrefix + "_CTL"
        eventsStream = streamPrefix + "_EVENTS"
        logsStream = streamPrefix + "_LOGS"
        self.enqueueConsumer = enqueueConsumer
    }

    // Jobs
    package func run(_ gpu: GPUID) -> String { "\(runPrefix).\(gpu.text)" }
    package func state(_ job: JobID) -> String { "\(statePrefix).\(job.text)" }
    package func result(_ job: JobID) -> String { "\(resultPrefix).\(job.text)" }
    package func log(_ job: JobID) -> String { "\(subjectPrefix)gpu.task.log.\(job.text)" }
    package var done: String { subjectPrefix + "gpu.task.done" }
    package var error: String { subjectPrefix + "gpu.task.err" }

    // Workers
    package func workerEvent(_ name: String) -> String { "\(subjectPrefix)gpu.worker.\(name)" }
    package var heartbeat: String { workerEvent("heartbeat") }
    package var metrics: String { workerEvent("metrics") }
    package var workerUp: String { workerEvent("up") }
    package var workerDown: String { workerEvent("down") }
    package var workerLog: String { workerEvent("log") }
    /// Requests to the worker of a card.
    package func workerRequest(_ gpu: GPUID, _ verb: WorkerRequest.Verb) -> String {
        "\(subjectPrefix)gpu.worker.\(gpu.text).\(verb.rawValue)"
    }
    /// The durable consumer of a card's runs.
    package func runConsumer(_ gpu: GPUID) -> String { "GPU_RUN_\(gpu.text)" }

    // Caches
    package var cacheHeartbeat: String { subjectPrefix + "gpu.cache.heartbeat" }
    /// Requests to the workers about their cards' caches, and what became of them.
    package func cacheRequest(_ verb: CacheRequest.Verb) -> String { "\(subjectPrefix)gpu.cache.\(verb.rawValue)" }
    package func cacheDone(_ verb: CacheRequest.Verb) -> String { cacheRequest(verb) + ".done" }
    package func cacheError(_ verb: CacheRequest.Verb) -> String { cacheRequest(verb) + ".err" }

    // Control
    package var leader: String { subjectPrefix + "gpu.ctl.leader" }
    package var resultsPlace: String { subjectPrefix + "gpu.ctl.results" }
    package func registration(_ gpu: GPUID) -> String { registrationPrefix + gpu.text }
    /// What every registration's subject begins with.
    package var registrationPrefix: String { subjectPrefix + "gpu.ctl.worker-" }
    /// What people and the leader have decided about a card.
    package func cardControl(_ gpu: GPUID) -> String { cardControlPrefix + gpu.text }
    package var cardControlPrefix: String { subjectPrefix + "gpu.ctl.card-" }

    // Maestro
    package func maestroEvent(_ name: String) -> String { "\(subjectPrefix)maestro.\(name)" }
    /// Where somebody tells the pool that it is day or night, whatever the clock says.
    package var circadianPhase: String { subjectPrefix + "circadian.phase" }
    /// Requests to the leading maestro.
    package func request(_ verb: String) -> String { "\(subjectPrefix)maestro.api.\(verb)" }

    /// The job that a subject of records, results or logs names.
    package func job(from subject: String) -> JobID? {
        // By bytes, which takes a small part of the time that characters do: every record that comes is asked for.
        subject.utf8.lastIndex(of: UInt8(ascii: ".")).flatMap { dot in
            JobID(String(subject[subject.utf8.index(after: dot)...]))
        }
    }
}
