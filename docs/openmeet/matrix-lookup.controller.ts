import type { IncomingMessage } from "node:http";
import {
  Controller,
  HttpCode,
  Inject,
  NotFoundException,
  Post,
  type RawBodyRequest,
  Req,
  SetMetadata,
  UnauthorizedException,
} from "@nestjs/common";
import { SkipThrottle } from "@nestjs/throttler";
import { Webhook } from "standardwebhooks";

export const LOOKUP_SECRET = Symbol("the secret of look-ups");
export const LOOKUP_SOURCE = Symbol("where OpenMeet's entities are read");

interface Question {
  tenant: string;
  kind: "user" | "event" | "group";
  slug: string;
  user?: string;
  members_page_token?: string;
}

interface Row {
  id: number;
  role: string;
  status?: string | null;
  user: { slug: string };
}

/** Reads OpenMeet's own entities. Fields are named one by one below: no entity is ever sent as it is. */
export interface Source {
  /** Of the configured list. `getTenantConnection` makes a schema of any text it is given. */
  hasTenant(tenant: string): boolean;
  find(tenant: string, kind: string, slug: string): Promise<Record<string, any> | null>;
  /** Attendees or group members with `id > after`, by id; only that user's where one is given. */
  members(tenant: string, kind: string, id: number, after: number, limit: number, user?: string): Promise<Row[]>;
}

const PAGE = 500;

@SkipThrottle()
@SetMetadata("isPublic", true)
@Controller("matrix/lookup")
export class MatrixLookupController {
  private readonly webhook: Webhook;

  constructor(
    @Inject(LOOKUP_SECRET) secret: string,
    @Inject(LOOKUP_SOURCE) private readonly source: Source,
  ) {
    this.webhook = new Webhook(secret);
  }

  @Post()
  @HttpCode(200)
  async lookUp(@Req() request: RawBodyRequest<IncomingMessage>): Promise<object> {
    let asked: Question;
    try {
      const headers = request.headers as Record<string, string>;
      asked = this.webhook.verify(request.rawBody as Buffer, headers) as Question;
    } catch {
      throw new UnauthorizedException();
    }
    const { tenant, kind, slug, user } = asked;
    if (!this.source.hasTenant(tenant)) throw new NotFoundException();
    // An error of the database must become a 500 and never a 404, which means that there is no such thing.
    const found = await this.source.find(tenant, kind, slug);
    if (found === null) throw new NotFoundException();
    if (kind === "user") {
      return { spec: { display_name: `${found.firstName ?? ""} ${found.lastName ?? ""}`.trim(), external_id: found.ulid } };
    }
    const after = Number(asked.members_page_token ?? 0);
    const rows = await this.source.members(tenant, kind, found.id, after, PAGE, user);
    return {
      spec: kind === "event" ? eventSpec(found) : entitySpec(found),
      members: rows.map((row) => ({
        user: row.user.slug,
        role: row.role,
        ...(kind === "event" ? { status: row.status ?? "pending" } : {}),
      })),
      next_members_page_token: rows.length < PAGE ? null : String(rows[rows.length - 1].id),
    };
  }
}

function entitySpec(found: Record<string, any>): object {
  return {
    name: found.name,
    description: found.description ?? null,
    visibility: found.visibility ?? "private",
    status: found.status ?? "draft",
    external_id: found.ulid,
  };
}

function eventSpec(found: Record<string, any>): object {
  return {
    ...entitySpec(found),
    starts_at: found.startDate?.toISOString() ?? null,
    ends_at: found.endDate?.toISOString() ?? null,
    time_zone: found.timeZone ?? null,
  };
}
