"""The queries by which derive.py makes the grocery tables from Complete Journey 2.0; PROVENANCE.md explains them.

Every time is UTC with microseconds, every id a string, every amount US dollars.
"""

from __future__ import annotations

# Before the first campaign (2016-11-14), so that every decision finds its customer.
CUSTOMERS_VALID_FROM = "2016-11-01"
# Prices are a catalogue property taken from the weeks before most campaigns, never from their future.
PRICES_UNTIL = "2017-03-01"
# Two products are in one product group when exactly the same offers, that is (campaign, coupon)
# pairs, cover both. An offer is then a list of groups, and what a household bought of the very
# products a coupon covers is a sum over that list: nothing is lost by leaving products out.
GROUPS = """
create table covered as select distinct campaign_id, coupon_upc, product_id from coupons;

create table product_groups as
with signatures as (
    select product_id,
           string_agg(campaign_id || '-' || coupon_upc, ',' order by campaign_id, coupon_upc) as signature
    from covered group by product_id
), numbered as (
    select signature, row_number() over (order by min(product_id)) as number
    from signatures group by signature
)
select product_id, 'g' || lpad(number::varchar, 4, '0') as product_group
from signatures join numbered using (signature);

create table catalogue as
select coalesce(p.product_id, g.product_id) as product_id, product_group, department,
       product_category as category, brand, manufacturer_id::varchar as manufacturer
from products p full join product_groups g on g.product_id = p.product_id;
"""
CUSTOMERS = f"""
with households as (
    select household_id from transactions
    union select household_id from campaigns
    union select household_id from demographics
)
select household_id::varchar as customer_id, timestamp '{CUSTOMERS_VALID_FROM}' at time zone 'UTC' as valid_from,
       age, income, home_ownership, marital_status, household_size, household_comp, kids_count
from households left join demographics using (household_id)
order by household_id
"""
# One row per basket, product group and category; `visit` is 1 on the first row of a basket and 0
# on the others, so its sum counts shopping trips. Amounts are added in cents: no rounding noise.
PURCHASES = """
with lines as (
    select household_id, transaction_timestamp as moment, basket_id, product_group, department, category,
           quantity, round(sales_value * 100)::bigint as cents,
           round(retail_disc * 100)::bigint as saved, round(coupon_disc * 100)::bigint as couponed
    from transactions left join catalogue using (product_id)
), events as (
    select household_id, moment, basket_id, department, category, product_group,
           count(*) as lines, sum(quantity) as quantity, sum(cents) as cents, sum(saved) as saved,
           sum(couponed) as couponed
    from lines group by all
)
select household_id::varchar as customer_id, moment at time zone 'UTC' as time,
       department, category, product_group,
       (row_number() over (partition by basket_id order by department, category, product_group) = 1)::tinyint
           as visit,
       lines::smallint as lines, quantity::integer as quantity, cents / 100.0::double as sales_value,
       saved / 100.0::double as retail_discount, couponed / 100.0::double as coupon_discount
from events
order by household_id, moment, basket_id, department, category, product_group
"""
# The main department, category, brand and manufacturer are the commonest among the covered
# products, ties by name. The headline names the category when it holds at least half of them.
OFFERS = f"""
with priced as (
    select product_id, median(sales_value / quantity) as price
    from transactions
    where quantity > 0 and sales_value > 0 and transaction_timestamp < timestamp '{PRICES_UNTIL}'
    group by product_id
), members as (
    select campaign_id, coupon_upc, catalogue.*, price
    from covered join catalogue using (product_id) left join priced using (product_id)
), pairs as (
    select campaign_id, coupon_upc, count(*) as n_products, count(distinct category) as n_categories,
           list(distinct product_group order by product_group) as product_groups,
           coalesce(list(distinct category order by category) filter (category is not null), []) as categories,
           avg((brand = 'Private')::int) as private_share, round(median(price), 2) as price
    from members group by all
), departments as (
    select campaign_id, coupon_upc, department, count(*) as n from members where department is not null group by all
), main_department as (
    select campaign_id, coupon_upc, first(department order by n desc, department) as department
    from departments group by all
), by_category as (
    select campaign_id, coupon_upc, category, count(*) as n from members where category is not null group by all
), main_category as (
    select campaign_id, coupon_upc, first(category order by n desc, category) as category, max(n) as n_category
    from by_category group by all
), by_brand as (
    select campaign_id, coupon_upc, brand, count(*) as n from members where brand is not null group by all
), main_brand as (
    select campaign_id, coupon_upc, first(brand order by n desc, brand) as brand from by_brand group by all
), makers as (
    select campaign_id, coupon_upc, manufacturer, count(*) as n
    from members where manufacturer is not null group by all
), main_maker as (
    select campaign_id, coupon_upc, first(manufacturer order by n desc, manufacturer) as manufacturer
    from makers group by all
), typical as (
    select median(price) as price_of_all from priced
), typical_by_category as (
    select category, median(price) as price_of_category
    from priced join catalogue using (product_id) group by category
)
select campaign_id || '-' || coupon_upc as offer_id, campaign_id::varchar as campaign_id,
       coupon_upc::varchar as coupon_upc, campaign_type,
       start_date at time zone 'UTC' as valid_from, (end_date + interval 1 day) at time zone 'UTC' as valid_until,
       case when n_category * 2 >= n_products then 'Coupon on ' || category
            else 'Coupon on ' || coalesce(department, 'groceries') || ' in ' || n_categories || ' categories' end
           || ' (' || n_products || case when n_products = 1 then ' product)' else ' products)' end as name,
       department, category, brand, manufacturer, private_share,
       n_products::integer as n_products, n_categories::integer as n_categories, price,
       round(coalesce(price, price_of_category, price_of_all), 2) as value, product_groups, categories
from pairs
join campaign_descriptions using (campaign_id)
left join main_department using (campaign_id, coupon_upc)
left join main_category using (campaign_id, coupon_upc)
left join main_brand using (campaign_id, coupon_upc)
left join main_maker using (campaign_id, coupon_upc)
left join typical_by_category using (category)
cross join typical
order by pairs.campaign_id, pairs.coupon_upc
"""
# A household gets every coupon of the campaigns that target it, on the campaign's first day.
DECISIONS = """
select campaign_id || '-' || household_id as decision_id, household_id::varchar as customer_id,
       start_date at time zone 'UTC' as time, 'mailer' as placement,
       campaign_id || '-' || coupon_upc as offer_id, null::double as action_probability
from (select distinct campaign_id, household_id from campaigns)
join campaign_descriptions using (campaign_id)
join (select distinct campaign_id, coupon_upc from covered) using (campaign_id)
order by start_date, campaign_id, household_id, coupon_upc
"""
# The source knows only the day of a redemption, in the shops' time (US Eastern): its last second is
# used, so that nothing seems known earlier than it was. The value is what the household paid that day for
# products the coupon covers; null where the day holds no such purchase.
OUTCOMES = """
with redemptions as (
    select distinct household_id, coupon_upc, campaign_id, redemption_date from coupon_redemptions
), paid as (
    select r.household_id, r.coupon_upc, r.campaign_id, r.redemption_date,
           sum(round(t.sales_value * 100)::bigint) / 100.0::double as value
    from redemptions r
    join covered c on c.coupon_upc = r.coupon_upc and c.campaign_id = r.campaign_id
    join transactions t on t.household_id = r.household_id and t.product_id = c.product_id
        and (t.transaction_timestamp - interval 5 hour)::date = r.redemption_date::date
    group by all
)
select campaign_id || '-' || household_id || '-' || coupon_upc || '-' || row_number() over (
           partition by campaign_id, household_id, coupon_upc order by redemption_date) as outcome_id,
       campaign_id || '-' || household_id as decision_id, household_id::varchar as customer_id,
       campaign_id || '-' || coupon_upc as offer_id, 'redemption' as type,
       (redemption_date + interval '23:59:59') at time zone 'UTC' as time, value
from redemptions left join paid using (household_id, coupon_upc, campaign_id, redemption_date)
order by redemption_date, campaign_id, household_id, coupon_upc
"""
TABLES = {
    "customers": CUSTOMERS,
    "purchases": PURCHASES,
    "offers": OFFERS,
    "decisions": DECISIONS,
    "outcomes": OUTCOMES,
}
COUNTS = """
with redeemed as (
    select r.*, c.household_id is null as untargeted, o.coupon_upc is null as foreign_coupon,
           redemption_date < start_date or redemption_date > end_date as outside, start_date, end_date
    from coupon_redemptions r
    join campaign_descriptions using (campaign_id)
    left join (select distinct campaign_id, household_id from campaigns) c using (campaign_id, household_id)
    left join (select distinct campaign_id, coupon_upc from covered) o using (campaign_id, coupon_upc)
)
select (select count(distinct customer_id) from customers) as households,
       (select count(*) from demographics) as households_with_attributes,
       (select count(*) from campaign_descriptions) as campaigns,
       (select count(distinct coupon_upc) from covered) as coupons,
       (select count(*) from transactions) as transaction_lines,
       (select count(distinct basket_id) from transactions) as baskets,
       (select count(distinct product_group) from product_groups) as product_groups,
       (select count(*) from coupons) as coupon_product_lines,
       (select count(*) from covered) as coupon_product_lines_distinct,
       (select count(*) from (select distinct campaign_id, household_id from campaigns)) as household_campaigns,
       count(*) as redemptions,
       count(distinct (household_id, coupon_upc, campaign_id)) as redeemed_pairs,
       count(distinct (household_id, campaign_id)) as household_campaigns_with_redemption,
       count(*) filter (untargeted) as redemptions_by_untargeted_households,
       count(*) filter (foreign_coupon) as redemptions_of_coupons_outside_their_campaign,
       count(*) filter (outside) as redemptions_outside_the_window,
       count(distinct (household_id, campaign_id)) filter (end_date < timestamp '2017-08-01')
           as household_campaigns_with_redemption_train,
       count(distinct (household_id, campaign_id)) filter (start_date >= timestamp '2017-08-01')
           as household_campaigns_with_redemption_test,
       (select count(*) from outcomes where value is null) as outcomes_without_value
from redeemed
"""
