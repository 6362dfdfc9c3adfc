import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import TaskSigning

/// With which key submissions are signed.
struct SigningOptions: ParsableArguments {
    static let file = SettingKey<String?>.optionalPath(
        "SIGN_WITH",
        help: "a file with the NKey seed of a user; what maestroctl submits is signed with it"
    )

    @Option(help: ArgumentHelp("Sign with the NKey seed in this file (SIGN_WITH).", valueName: "file"))
    var signWith: String?

    /// The key, if one is named here or in the configuration.
    func key(_ pool: PoolOptions) throws(FatalError) -> SigningKey? {
        let configured = try pool.settings()[Self.file]
        guard let path = signWith ?? configured else { return nil }
        let text: String
        do throws(FileContents.Failure) {
            text = String(decoding: try FileContents.read(path, limit: 4096), as: UTF8.self)
        } catch {
            throw FatalError(.configuration, "the key to sign with cannot be read: \(error)")
        }
        // As nk and maestro-keys write it: the seed is the one line, or the one between two lines of dashes.
        let lines = text.split(whereSeparator: \.isWhitespace)
        guard let key = lines.lazy.compactMap({ SigningKey(seed: String($0)) }).first else {
            throw FatalError(.configuration, "\(path) holds no NKey seed of a user (SU…)")
        }
        return key
    }
}

extension Submission {
    /// The same job with the signature of a key; without a key it stays as it is.
    /// - Throws: ``TaskRefusal`` when it is too long with the signature.
    func signed(with key: SigningKey?) throws(TaskRefusal) -> Submission {
        guard let key else { return self }
        guard let bytes = TaskSignature.sign(bytes, with: key) else {
            throw TaskRefusal("\(id) cannot be signed: libcrypto refuses", id: id)
        }
        _ = try JobTask(submission: bytes)
        return Submission(id: id, exactly: bytes)
    }
}
