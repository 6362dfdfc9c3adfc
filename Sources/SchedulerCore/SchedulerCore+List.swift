import JobModel
import WireJSON

/// Which jobs a client wants to see.
package struct JobQuery: Sendable, Equatable {
    /// Only jobs in one of these states; empty for all.
    package var states: Set<JobState>
    /// How many at most, the newest.
    package var limit: Int

    /// Most jobs that one answer names.
    package static let longest = 1000

    package init(states: Set<JobState> = [], limit: Int) {
        self.states = states
        self.limit = limit
    }
}

/// The newest jobs, named so that their records can be read one by one.
extension SchedulerCore {
    /// All records are known: from now on the index is kept.
    mutating func buildIndex() {
        index = JobIndex(ended: retention.ended, live: jobs.submissions)
    }

    mutating func noteLive(_ record: JobRecord) {
        guard phase == .leading, let number = jobs.number(of: record.id) else { return }
        index.insert(number, submitted: record.times.submitted)
    }

    mutating func noteEnded(_ number: UInt32?, _ job: EndedJob) {
        if phase == .leading { index.end(number, as: job) }
    }

    mutating func list(_ query: JobQuery, to request: RequestToken) {
        guard isIndexComplete else {
            let reason = "there are records that this maestro cannot read: read them all"
            return actions.append(.reply(request, Self.refusal("incomplete", reason)))
        }
        let states = query.states.isEmpty ? Set(JobState.allCases) : query.states
        let total = states.reduce(0) { $0 + (liveCounts[$1] ?? 0) + index.count(of: $1) }
        let wanted = min(query.limit, JobQuery.longest, total)
        var found: [JSON] = []
        found.reserveCapacity(max(0, wanted))
        if wanted > 0 {
            index.newest { one in
                if let name = name(of: one, in: states) { found.append(name) }
                return found.count < wanted
            }
        }
        let answer: JSON = [
            "ok": true, "through": .int(results.observed), "total": .int(total), "jobs": .array(found),
        ]
        actions.append(.reply(request, answer))
    }

    private func name(of found: JobIndex.Found, in states: Set<JobState>) -> JSON? {
        switch found {
        case .ended(let job):
            return states.contains(job.state) ? ["sequence": .int(job.sequence)] : nil
        case .live(let number, let submitted):
            // The number may be another job's by now, if its record was made by somebody who changed its times.
            guard let state = jobs.state(of: number), states.contains(state), jobs.submitted(of: number) == submitted,
                let id = jobs.id(of: number)
            else { return nil }
            return ["task_id": .string(id.text)]
        }
    }
}
